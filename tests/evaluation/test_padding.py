"""Whether a batch has the outputs that each item has alone, and the batches that are made accordingly."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import tiny_text

from benchcard import Benchmark, registry
from benchcard.evaluation import features, padding
from benchcard.evaluation.rows import Rows, read_predictions
from benchcard.frameworks.onnxruntime import OnnxRuntime
from benchcard.testing import pass_through

LABELS = ["negative", "positive", "mixed"]
WORDS = tiny_text.WORDS.split()[5:]


def items_of(folder, lengths, *, pad=("ids", "mask"), side="right"):
    """Items of these lengths, each with different numbers."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    rows = [{"ids": draw.normal(size=length), "mask": np.ones(length)} for length in lengths]
    features.write_features(rows, folder, pad=dict.fromkeys(pad, 0.0), padding_side=side)
    return features.Features(folder)


def asked(call, items, batch_size=None):
    """Return the largest batches that a function of inputs allows."""
    found = padding.probe(
        lambda inputs: {"scores": call(inputs)},
        items,
        lambda outputs, _: {"scores": list(outputs["scores"])},
        batch_size,
    )
    return found.batches


def mean(inputs):
    """A correct model: the mean without padding, `(batch, 1)`."""
    return ((inputs["ids"] * inputs["mask"]).sum(1) / inputs["mask"].sum(1))[:, None]


def with_masks_of_the_first(inputs):
    """A model that applies the first item's mask to all items."""
    return mean({**inputs, "mask": np.broadcast_to(inputs["mask"][:1], inputs["mask"].shape)})


def only_when_short(inputs):
    """A model that reads padding where inputs are short."""
    return mean(inputs) if inputs["ids"].shape[1] > 6 else inputs["ids"].mean(1)[:, None]


def random(inputs, draw=np.random.default_rng(0)):  # noqa: B008 - one generator for all calls is what is wanted
    """A model that gives other numbers in each call."""
    return mean(inputs) + draw.normal(size=(len(inputs["ids"]), 1))


def nan_at_padding(inputs):
    """A model that gives the mean, and NaN where an item is padded."""
    return np.where(inputs["mask"].all(1), mean(inputs)[:, 0], np.nan)[:, None]


MODELS = {
    "right": (mean, padding.PADDED),
    "rounding": (lambda inputs: mean(inputs) * (1 + 1e-7 * inputs["ids"].shape[1]), padding.PADDED),
    "constant": (lambda inputs: np.full((len(inputs["ids"]), 1), 3.0) + 1e-7 * len(inputs["ids"]), padding.PADDED),
    "reads padding": (lambda inputs: inputs["ids"].mean(1)[:, None], padding.EQUAL_SHAPES),
    "first mask": (with_masks_of_the_first, padding.EQUAL_SHAPES),
    "only when short": (only_when_short, padding.EQUAL_SHAPES),
    "nan at padding": (nan_at_padding, padding.EQUAL_SHAPES),
    "far from zero": (lambda inputs: 1e4 + inputs["ids"].mean(1)[:, None], padding.EQUAL_SHAPES),
    "minus infinity": (
        lambda inputs: np.concatenate([np.full((len(inputs["ids"]), 1), -1e30), inputs["ids"].mean(1)[:, None]], 1),
        padding.EQUAL_SHAPES,
    ),
    "whole numbers": (
        lambda inputs: np.full((len(inputs["ids"]), 1), inputs["ids"].shape[1] * 1000 // 7),
        padding.EQUAL_SHAPES,
    ),
    "batch mean": (lambda inputs: mean(inputs) - mean(inputs).mean(), padding.ALONE),
    "random": (random, padding.RANDOM),
}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", MODELS)
def test_what_a_model_depends_on_is_found(kind, side, tmp_path):
    """Dependence on padding, on neighbors and on chance is distinguished from rounding of outputs of any size."""
    call, batches = MODELS[kind]
    items = items_of(tmp_path / "items", [3, 12, 5, 4, 12, 3, 9, 5, 20, 3], side=side)
    assert asked(call, items) == batches


def test_ids_beside_numbers_may_change_places(tmp_path):
    """The ids of the largest of two almost equal numbers differ in another batch, and only the numbers count; ids alone
    do, as above.
    """
    items = items_of(tmp_path / "items", [3, 5, 7])

    def keep(outputs, inputs):
        ids = np.full((len(inputs["ids"]), 1), inputs["ids"].shape[1])
        return {"numbers": list(outputs["value"]), "ids": list(ids)}

    assert padding.probe(lambda inputs: {"value": mean(inputs)}, items, keep).batches == padding.PADDED


@pytest.mark.parametrize(
    ("lengths", "pad", "batch_size"), [([4, 4, 4], ("ids", "mask"), None), ([3, 5, 3, 5], (), None), ([7], (), None)]
)
def test_nothing_is_padded_where_nothing_can_be(lengths, pad, batch_size, tmp_path):
    """Items of one length, or that are never padded, can depend on their neighbors only."""
    items = items_of(tmp_path / "items", lengths, pad=pad)
    assert asked(MODELS["reads padding"][0], items, batch_size) == padding.PADDED
    assert asked(MODELS["batch mean"][0], items, batch_size) == (padding.ALONE if len(lengths) > 1 else padding.PADDED)


def test_no_more_items_are_asked_at_once_than_are_evaluated(tmp_path):
    """A batch never has more items than asked."""
    sizes = []

    def call(inputs):
        sizes.append(len(inputs["ids"]))
        return mean(inputs)

    assert asked(call, items_of(tmp_path / "items", [3, 12, 5, 4, 12, 3]), 2) == padding.PADDED
    assert set(sizes) == {1, 2}


def write_bert(folder, kind, side, labels=LABELS):
    """A BERT of absolute positions whose tokenizer pads on this side."""
    tiny_text.write_tokenizer(folder, padding_side=side)
    return tiny_text.write_model(folder, kind, labels, initializer_range=0.2)


def write_other(folder, name, side, **settings):
    """A tiny classifier of another architecture of transformers."""
    import torch
    import transformers

    tokenizer = tiny_text.write_tokenizer(folder, padding_side=side)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = getattr(transformers, f"{name}Config")(
        **small, **settings, vocab_size=len(tokenizer), pad_token_id=0, initializer_range=0.5, num_labels=len(LABELS)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        getattr(transformers, f"{name}ForSequenceClassification")(config).save_pretrained(folder)
    return folder


def texts():
    """Forty texts of 1 to 20 words."""
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(WORDS, size)) for size in draw.integers(1, 20, 40)]


CLASSIFIED = {"text": texts(), "label": [index % 3 for index in range(40)]}
CASES = {
    "bert": (
        partial(write_bert, kind="ForSequenceClassification", side="right"),
        "text-classification",
        CLASSIFIED,
        None,
    ),
    "bert-left": (
        partial(write_bert, kind="ForSequenceClassification", side="left"),
        "text-classification",
        CLASSIFIED,
        padding.EQUAL_SHAPES,
    ),
    "gpt2-left": (
        partial(write_other, name="GPT2", side="left"),
        "text-classification",
        CLASSIFIED,
        padding.EQUAL_SHAPES,
    ),
    "convbert": (
        partial(write_other, name="ConvBert", side="right", embedding_size=16),
        "text-classification",
        CLASSIFIED,
        padding.EQUAL_SHAPES,
    ),
    "embeddings-left": (
        partial(write_bert, kind="Model", side="left", labels=None),
        "feature-extraction",
        {"sentence1": texts()[:20], "sentence2": texts()[20:], "score": [float(index % 6) for index in range(20)]},
        padding.EQUAL_SHAPES,
    ),
    "entities-left": (
        partial(write_bert, kind="ForTokenClassification", side="left", labels=["O", "B-PER", "I-PER"]),
        "token-classification",
        {"tokens": [each.split() for each in texts()], "ner_tags": [["O"] * len(each.split()) for each in texts()]},
        padding.EQUAL_SHAPES,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_text_gets_what_it_gets_alone(case, tmp_path):
    """Outputs and figures are those of one text at a time, whichever side is padded and whatever the model makes of
    padding; only where that took other batches is there a note.
    """
    write, task, rows, batches = CASES[case]
    model, data = write(tmp_path / "model"), tiny_text.write_data(tmp_path / "data", rows)
    alone = pass_through(task, model, data, tmp_path / "1", batch_size=1)
    found = pass_through(task, model, data, tmp_path / "many")
    for name, values in alone.kept.items():
        np.testing.assert_allclose(found.kept[name], values, atol=1e-4)
    assert found.metrics == pytest.approx(alone.metrics, abs=1e-6)
    told = [note for note in found.notes if note.startswith("the outputs of the model")]
    assert told == ([f"the outputs of the model {padding.NOTES[batches]}"] if batches else [])


def test_batches_of_equal_length_hold_every_item_once(tmp_path):
    """Without padding all items of a batch have one shape, and the longest still come first."""
    items = items_of(tmp_path / "items", [3, 12, 5, 4, 12, 3, 3])
    batches = list(items.batches(2, padded=False))
    assert [batch["ids"].shape for _, batch in batches] == [(2, 12), (1, 5), (1, 4), (2, 3), (1, 3)]
    assert sorted(place for places, _ in batches for place in places) == list(range(7))


@pytest.mark.slow
def test_all_rows_of_a_grid_are_evaluated_as_if_alone(tmp_path):
    """PyTorch, ONNX Runtime, dynamic and static rows give each text what the model gives it alone: a model padded on
    the left in each of them, and one whose statically quantized attention mask no longer hides padding.
    """
    sides = ("right", "left")
    for side in sides:
        write_bert(tmp_path / side, "ForSequenceClassification", side)
    rows = {"text": CLASSIFIED["text"], "label": [0, 1, 2, *[0] * 37]}
    data = tiny_text.write_data(tmp_path / "drawn", rows)
    # What the model says of each text alone is what is right.
    right = pass_through("text-classification", tmp_path / "right", data, tmp_path / "alone", batch_size=1)
    tiny_text.write_data(tmp_path / "data", {**rows, "label": [LABELS[each] for each in right.predictions]})
    benchmark = Benchmark(
        task="text-classification",
        dataset={"path": str(tmp_path / "data"), "eval_split": "validation", "calibration_split": "validation"},
        fixed={"calibration": {"method": "minmax", "num_calibration_samples": 20}},
        grid={
            "name_or_path": [str(tmp_path / side) for side in sides],
            "framework": ["onnxruntime", "pytorch"],
            "quantization_approach": ["dynamic", "static"],
            "operators_to_quantize": [["Add", "MatMul"]],
            "apply_quantization": [False, True],
        },
        duration=0,
    )
    results = benchmark.run(tmp_path / "run", progress=False)
    task, depends = registry.task("text-classification"), []
    for record in results.records.records:
        row, evaluated = record.configuration, record.outcomes.evaluate
        if not row.quantized:
            assert record.outcomes.score.values.metrics["accuracy"] == 1.0
        prepared = Rows(record.outcomes.prepare.folder)
        if row["framework"] == "onnxruntime":
            made = record.outcomes.graph
            model = OnnxRuntime().open(made.folder / made.values.file, {})
            expected = np.empty((40, 3))
            for places, batch in prepared.items.batches(1):
                expected[places] = task.kept(model(batch), batch, prepared.context)["scores"]
            np.testing.assert_allclose(read_predictions(evaluated.folder)[1]["scores"], expected, atol=1e-4)
        depends += [row.row] if evaluated.values.batches == padding.EQUAL_SHAPES else []
        is_static = row["quantization_approach"] == "static"
        is_left = row["name_or_path"].endswith("left")
        answer = None if row["quantization_approach"] == "dynamic" else padding.PADDED
        assert evaluated.values.batches == (padding.EQUAL_SHAPES if is_static or (is_left and answer) else answer)
    assert len(depends) == 4
    note = f"the outputs of rows {', '.join(map(str, depends))} {padding.NOTES[padding.EQUAL_SHAPES]}"
    assert note in results.notes
    assert note[1:] in results.card().text.replace("\n", " ")
    assert padding.NOTES[padding.EQUAL_SHAPES] in results.explain(depends[0])
