"""Question answering: windows, answers chosen over them, and questions without an answer."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_text

from benchcard import registry
from benchcard.errors import SpecError
from benchcard.metrics.info import MetricInfo
from benchcard.tasks.question_answering import QuestionAnswering

TASK = "question-answering"
CONTEXTS = ["Anna lives in Paris. Bob works for Acme.", "the film in Rome, bright and good"]
LONG = " ".join(["anna works for acme in paris and bob lives in rome"] * 8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model that gives starts and ends."""
    folder = tmp_path_factory.mktemp("model")
    tiny_text.write_tokenizer(folder)
    return tiny_text.write_model(folder, "ForQuestionAnswering")


def data_of(folder, contexts=(*CONTEXTS, LONG), answers=None, questions=None):
    """A data set like SQuAD."""
    answers = answers or [
        {"text": ["Paris"], "answer_start": [14]},
        {"text": ["Rome", "in Rome"], "answer_start": [12, 9]},
        {"text": ["acme"], "answer_start": [15]},
    ]
    questions = questions or ["  Anna lives in"] * len(contexts)
    return tiny_text.write_data(
        folder,
        {
            "id": ["same"] * len(contexts),
            "question": list(questions),
            "context": list(contexts),
            "answers": answers[: len(contexts)],
        },
    )


def by_reference(model, question, context, *, unanswerable, maximum=32, stride=8, n_best=20, longest=30):
    """Return the answer of the reference algorithm: every window alone, every pair of places tried."""
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    tokenizer, net = AutoTokenizer.from_pretrained(model), AutoModelForQuestionAnswering.from_pretrained(model).eval()
    encoding = tokenizer(
        question.lstrip(),
        context,
        truncation="only_second",
        max_length=maximum,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    found, nulls = [], []
    for index in range(len(encoding["input_ids"])):
        inputs = {
            name: torch.tensor(encoding[name][index : index + 1])
            for name in ("input_ids", "token_type_ids", "attention_mask")
        }
        with torch.inference_mode():
            outputs = net(**inputs)
        start, end = outputs.start_logits[0].numpy(), outputs.end_logits[0].numpy()
        nulls.append(start[0] + end[0])
        inside = [part == 1 for part in encoding.sequence_ids(index)]
        places = encoding["offset_mapping"][index]
        for one in np.argsort(start)[::-1][:n_best]:
            for other in np.argsort(end)[::-1][:n_best]:
                if inside[one] and inside[other] and one <= other < one + longest:
                    found.append((start[one] + end[other], context[places[one][0] : places[other][1]]))
    score, text = max(found, key=lambda each: each[0])
    return ("" if unanswerable and min(nulls) > score else text), len(encoding["input_ids"])


def test_answers_are_those_of_the_reference(model, tmp_path):
    """In padded batches of windows every answer is that of the reference algorithm."""
    found = tiny_text.passed(
        TASK, model, data_of(tmp_path / "data"), tmp_path, ("exact_match", "f1"), task_args={"doc_stride": 8}
    )
    expected = [by_reference(model, "  Anna lives in", context, unanswerable=False) for context in (*CONTEXTS, LONG)]
    assert [each["prediction_text"] for each in found.predictions] == [text for text, _ in expected]
    assert expected[2][1] > 1
    total = sum(count for _, count in expected)
    assert f"1 of 3 contexts was read in overlapping windows ({total} windows in all)" in found.notes
    assert [reference["id"] for reference in found.references] == ["0", "1", "2"]
    assert set(found.scored.metrics) == {"exact_match", "f1"}
    assert found.scored.readings["f1"] == MetricInfo(True, "%")


def test_batches_change_no_answer(model, tmp_path):
    """Batches of 1 and of 32 windows give the same answers."""
    data = data_of(tmp_path / "data")
    one, many = (tiny_text.passed(TASK, model, data, tmp_path / str(size), batch_size=size) for size in (1, 32))
    assert [each["prediction_text"] for each in one.predictions] == [
        each["prediction_text"] for each in many.predictions
    ]
    np.testing.assert_allclose(one.kept["start_logits"], many.kept["start_logits"], atol=1e-5)


def test_a_tokenizer_that_pads_on_the_left_reads_the_context_first(tmp_path):
    """With padding on the left the context comes before the question; answers are still parts of the context."""
    from benchcard.evaluation.rows import Rows

    tokenizer = tiny_text.write_tokenizer(tmp_path / "left", padding_side="left")
    model = tiny_text.write_model(tmp_path / "left", "ForQuestionAnswering")
    data = data_of(tmp_path / "data")
    one = tiny_text.passed(TASK, model, data, tmp_path / "1", batch_size=1)
    many = tiny_text.passed(TASK, model, data, tmp_path / "9", batch_size=9)
    first = Rows(one.prepared).items.item(0)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(first.tolist())[1:5] == ["anna", "lives", "in", "paris"]
    assert one.kept["start_logits.shapes"].tolist() == many.kept["start_logits.shapes"].tolist()
    for found, context in zip(many.predictions, (*CONTEXTS, LONG)):
        assert found["prediction_text"]
        assert found["prediction_text"] in context


def test_questions_without_an_answer(model, tmp_path):
    """A row without an answer makes the metrics those of SQuAD v2, and no answer a possible one."""
    answers = [
        {"text": ["Paris"], "answer_start": [14]},
        {"text": [], "answer_start": []},
        {"text": ["acme"], "answer_start": [15]},
    ]
    data = data_of(tmp_path / "data", answers=answers)
    found = tiny_text.passed(TASK, model, data, tmp_path / "a", ("exact_match", "f1"), task_args={"doc_stride": 8})
    assert [each["prediction_text"] for each in found.predictions] == [
        by_reference(model, "  Anna lives in", context, unanswerable=True)[0] for context in (*CONTEXTS, LONG)
    ]
    assert all(0 < each["no_answer_probability"] < 1 for each in found.predictions)
    never = tiny_text.passed(TASK, model, data, tmp_path / "b", task_args={"null_score_diff_threshold": 1e6})
    always = tiny_text.passed(
        TASK, model, data, tmp_path / "c", ("exact_match", "squad_v2"), task_args={"null_score_diff_threshold": -1e6}
    )
    assert all(each["prediction_text"] for each in never.predictions)
    assert [each["prediction_text"] for each in always.predictions] == [""] * 3
    assert always.scored.metrics["exact_match"] == pytest.approx(100 / 3)
    assert always.scored.metrics["NoAns_exact"] == 100.0


def window(start, end, inside):
    """A window whose tokens are one character each."""
    offsets = np.asarray([[place, place + 1] if place >= 0 else [-1, -1] for place in inside])
    logits = {"start_logits": np.asarray(start, np.float32), "end_logits": np.asarray(end, np.float32)}
    return {**logits, "offsets": offsets, "null": np.asarray([0])}


def answer(context, windows, **settings):
    """The answer that the task finds in windows, and the probability that there is none."""
    found = QuestionAnswering().prediction(windows, {"id": "0", "context": context}, settings)
    return found["prediction_text"], found["no_answer_probability"]


def test_the_best_window_wins():
    """The answer is the span with the highest sum over all windows."""
    first = window([9, 0, 1, 2], [9, 3.2, 0, 1], [-1, 0, 1, 2])
    second = window([9, 0, 1, 2], [9, 0, 0, 1.5], [-1, 2, 3, 4])
    assert answer("abcde", [first], answerable=True) == ("a", 0.0)
    assert answer("abcde", [first, second], answerable=True) == ("e", 0.0)


def test_spans_that_cannot_be():
    """An answer lies inside the context, ends after its start, and is not too long; there may be none."""
    assert answer("abc", [window([9, 0, 0, 4], [9, 5, 0, 0], [-1, 0, 1, 2])], answerable=True)[0] == "a"
    long = window([9, 2, 0.5, 0], [9, 0, 0, 3], [-1, 0, 1, 2])
    assert answer("abc", [long], answerable=True)[0] == "abc"
    assert answer("abc", [long], answerable=True, max_answer_length=2)[0] == "bc"
    assert answer("abc", [long], answerable=True, n_best_size=1)[0] == ""
    assert answer("abc", [window([1, 0], [1, 0], [-1, -1])], answerable=True) == ("", 0.0)
    assert answer("abc", [window([1, 0], [1, 0], [-1, -1])], answerable=False) == ("", 1.0)


def test_no_answer_must_win_in_every_window():
    """The score of no answer is its lowest over the windows, and must exceed the best answer's by the threshold."""
    sure, unsure = window([5, 1], [5, 1], [-1, 0]), window([0, 1], [0, 1], [-1, 1])
    assert answer("ab", [sure], answerable=False)[0] == ""
    assert answer("ab", [sure, unsure], answerable=False)[0] == "a"
    assert answer("ab", [sure], answerable=False, null_score_diff_threshold=8.0)[0] == "a"
    assert answer("ab", [sure], answerable=False, null_score_diff_threshold=7.9)[0] == ""
    probability = answer("ab", [sure], answerable=False)[1]
    assert probability == pytest.approx(1 / (1 + np.exp(-8)))


def test_an_answer_that_is_not_there_is_counted(model, tmp_path):
    """Answers that are not at `answer_start` are scored by their text, and a note gives their number."""
    data = data_of(tmp_path / "data", CONTEXTS[:1], [{"text": ["Paris", "Anna"], "answer_start": [13, 0]}])
    assert any(
        note.startswith("1 of 2 answers does not stand") for note in tiny_text.passed(TASK, model, data, tmp_path).notes
    )


def test_answers_in_other_forms(model, tmp_path):
    """Answers may be a text, empty for none, or a list."""
    data = data_of(tmp_path / "a", CONTEXTS, ["Paris", ""])
    assert [each["answers"]["text"] for each in tiny_text.passed(TASK, model, data, tmp_path / "one").references] == [
        ["Paris"],
        [],
    ]
    data = data_of(
        tmp_path / "b",
        CONTEXTS[:1],
        [[{"text": "Paris", "answer_start": 14}, {"text": "in Paris", "answer_start": 11}]],
    )
    assert tiny_text.passed(TASK, model, data, tmp_path / "two").references[0]["answers"]["text"] == [
        "Paris",
        "in Paris",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"questions": ["good", " "]}, r'" " in row 1 of `question`'),
        ({"contexts": ["good", ""]}, r'"" in row 1 of `context`'),
        (
            {"questions": ["good", "film " * 40]},
            r"context in 32 tokens.*question that takes 43 tokens.*row 1 of `question`",
        ),
        ({"answers": [3, 4]}, r"3 in row 0 of `answers`"),
    ],
)
def test_what_does_not_fit_is_said(model, tmp_path, change, said):
    """Empty texts, questions without room for a context, and answers of another form name their column and row."""
    data = data_of(tmp_path / "data", **{"contexts": CONTEXTS, **change})
    with pytest.raises(SpecError, match=said):
        tiny_text.prepare(TASK, model, data, tmp_path / "prepared")


def test_inputs_to_time_with_are_pairs(model):
    """They have a question, a separator, a context, and the token types of both."""
    arrays, length = registry.task(TASK).inputs(model, 2, 24, 0)
    assert (length, arrays["input_ids"].shape) == (24, (2, 24))
    assert (arrays["input_ids"] == 3).sum(axis=1).tolist() == [2, 2]
    assert set(arrays["token_type_ids"][0].tolist()) == {0, 1}
    assert arrays["token_type_ids"][0].tolist() == sorted(arrays["token_type_ids"][0].tolist())
