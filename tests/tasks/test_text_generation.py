"""Text generation: perplexity as a plain loop over PyTorch gives it, windows, hostile texts, and the next tokens."""

from __future__ import annotations

import functools
import importlib.util
import math

import numpy as np
import pytest
import tiny_text

from benchcard.errors import SpecError
from benchcard.evaluation.fidelity import compare_outputs
from benchcard.evaluation.rows import Rows, items_of, write_predictions
from benchcard.steps import models
from benchcard.steps.data import ShapeOutcome
from benchcard.steps.step import Outcome
from benchcard.tasks.text_generation import TextGeneration
from benchcard.utils.values import PHASES

TASK = "text-generation"
TEXTS = [
    "anna lives in paris",
    "the good film",
    "bob works for acme " * 30,
    "the bright film lives in rome for anna " * 4,
    "a",
]
MAXIMUM = 32
WORDS = len(tiny_text.WORDS.split())


def write_decoder(folder, *, vocabulary=WORDS, seed=0, noise=0.0, **tokenizer):
    """A seeded two-layer GPT-2 with large weights and the tokenizer of the other texts; `noise` changes its weights."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    inputs = ["input_ids", "attention_mask"]
    tiny_text.write_tokenizer(folder, MAXIMUM, model_input_names=inputs, **tokenizer)
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=MAXIMUM, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
        with torch.no_grad():
            for weight in model.parameters():
                weight += noise * torch.randn_like(weight)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """The folder of a decoder without pad, bos and eos tokens."""
    return write_decoder(tmp_path_factory.mktemp("decoder"), pad_token=None)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of these texts."""
    return tiny_text.write_data(tmp_path_factory.mktemp("texts"), {"text": TEXTS})


@functools.cache
def load(model):
    """The model of a folder in PyTorch."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model).eval()


def log_probabilities(model, ids):
    """The logits of PyTorch for some token ids alone, as log-probabilities `(tokens, vocabulary)`."""
    import torch

    with torch.inference_mode():
        return load(model)(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)


def token_ids(model):
    """The token ids of each text."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)(TEXTS)["input_ids"]


def plain_perplexity(model, window, stride):
    """The perplexity of the texts by a loop over PyTorch, and the number of tokens that it predicts."""
    total, count = 0.0, 0
    for ids in token_ids(model):
        for place in range(1, len(ids)):
            # The first window that reaches the token has most tokens before it.
            start = next(start for start in range(0, len(ids), stride) if start + window > place)
            total -= float(log_probabilities(model, ids[start:place])[-1, ids[place]])
            count += 1
    return math.exp(total / count), count


@pytest.mark.parametrize("arguments", [{}, {"window": 8}, {"window": 9, "stride": 8}, {"window": 12, "stride": 1}])
@pytest.mark.parametrize("batch_size", [None, 1])
def test_perplexity_is_that_of_a_plain_loop(decoder, data, tmp_path, arguments, batch_size):
    """Texts shorter and much longer than a window have the perplexity of a loop that predicts each token alone, from
    the tokens of its window; each token but the first is counted once, also in padded batches without a pad token.
    """
    passed = tiny_text.passed(TASK, decoder, data, tmp_path, ("perplexity",), batch_size, task_args=arguments)
    window = arguments.get("window", MAXIMUM)
    stride = arguments.get("stride", window // 2)
    expected, count = plain_perplexity(decoder, window, stride)
    assert passed.scored.metrics["perplexity"] == pytest.approx(expected, rel=1e-5)
    assert sum(passed.references) == count == sum(len(ids) - 1 for ids in token_ids(decoder))
    assert passed.notes[1:] == [
        f"{count} tokens of 5 texts were predicted, in windows of at most {window} tokens, "
        f"each {stride} after the one before"
    ]
    assert passed.scored.readings["perplexity"].higher_is_better is False


def test_all_texts_may_be_one(decoder, data, tmp_path):
    """Joined as published perplexities have it, the texts are one, whose windows are examples of their own."""
    import torch
    from transformers import AutoTokenizer

    arguments = {"window": 16, "stride": 8, "join_texts": True}
    passed = tiny_text.passed(TASK, decoder, data, tmp_path, ("perplexity",), task_args=arguments)
    ids = torch.tensor([AutoTokenizer.from_pretrained(decoder)("\n\n".join(TEXTS))["input_ids"]])
    total = end = 0
    for start in range(0, ids.shape[1], 8):
        before, end = end, min(start + 16, ids.shape[1])
        labels = ids[:, start:end].clone()
        labels[:, : before - start] = -100
        with torch.inference_mode():
            loss = load(decoder)(ids[:, start:end], labels=labels).loss
        total += float(loss) * int((labels[:, 1:] != -100).sum())
        if end == ids.shape[1]:
            break
    assert passed.scored.metrics["perplexity"] == pytest.approx(math.exp(total / (ids.shape[1] - 1)), rel=1e-5)
    assert sum(passed.references) == ids.shape[1] - 1
    assert len(passed.references) == len(passed.kept["log_probs.shapes"])
    assert passed.notes[1].startswith(f"{ids.shape[1] - 1} tokens of 5 texts, joined to one, were predicted")
    estimate = tiny_text.compared(TASK, tmp_path / "prepared", tmp_path / "predicted", tmp_path, "perplexity")
    assert estimate.low < passed.scored.metrics["perplexity"] < estimate.high


def test_what_is_kept_are_the_next_tokens_of_pytorch(decoder, data, tmp_path):
    """The true tokens, the most likely ones in order, and the rest have PyTorch's probabilities."""
    passed = tiny_text.passed(TASK, decoder, data, tmp_path)
    kept = {name: items_of(passed.kept, name)[0] for name in ("log_probs", "top", "top_log_probs", "rest")}
    ids = token_ids(decoder)[0]
    expected = log_probabilities(decoder, ids)[:-1]
    np.testing.assert_allclose(kept["log_probs"], expected[range(len(ids) - 1), ids[1:]], atol=1e-5)
    np.testing.assert_array_equal(kept["top"][:, 0], expected.argmax(-1))
    np.testing.assert_allclose(kept["top_log_probs"], expected.sort(-1, descending=True).values, atol=1e-5)
    np.testing.assert_allclose(kept["rest"], 0)
    assert kept["top"].shape == (len(ids) - 1, WORDS)


def test_texts_with_nothing_to_predict_are_counted(decoder, tmp_path):
    """Where the tokenizer adds no token, empty texts and texts of one token predict nothing, and a note says so."""
    from transformers import AutoTokenizer

    write_decoder(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.save_pretrained(tmp_path / "model")
    data = tiny_text.write_data(tmp_path / "data", {"text": ["", "good", "the good film", " \n"]})
    passed = tiny_text.passed(TASK, tmp_path / "model", data, tmp_path, ("perplexity",))
    assert passed.references == [0, 0, 2, 0]
    assert passed.predictions[0] == 0
    assert passed.scored.metrics["perplexity"] == pytest.approx(math.exp(-passed.predictions[2] / 2))
    assert passed.notes[2] == "3 of 4 texts have fewer than two tokens: nothing is predicted"

    empty = tiny_text.write_data(tmp_path / "empty", {"text": ["", "good"]})
    with pytest.raises(SpecError, match="texts of fewer than two tokens"):
        tiny_text.prepare(TASK, tmp_path / "model", empty, tmp_path / "other")


@pytest.mark.parametrize(
    ("values", "arguments", "message"),
    [
        (["a film", None], {}, "expected a text, found null in row 1 of `text` @ $.dataset.data_keys.primary"),
        ([3, 4], {}, "expected a text, found 3 in row 0 of `text` @ $.dataset.data_keys.primary"),
        (
            ["a film"],
            {"window": 33},
            "expected at most 32, the token limit of the model, found 33 @ $",
        ),
        (
            ["a film"],
            {"window": 8, "stride": 8},
            "so that each token has one before it, found 8 @ $.task_args.stride",
        ),
        (
            ["a film"],
            {"stride": 40},
            "expected less than the window of 32 tokens",
        ),
        (["a film"], {"window": 1}, "found 1 @ $.task_args.window"),
    ],
)
def test_mistakes_are_refused_by_name(decoder, tmp_path, values, arguments, message):
    """A row that is no text, and windows that the model cannot read or that leave tokens out."""
    data = tiny_text.write_data(tmp_path / "data", {"text": values})
    with pytest.raises(SpecError) as raised:
        tiny_text.prepare(TASK, decoder, data, tmp_path / "out", task_args=arguments)
    assert message in str(raised.value)


def test_a_tokenizer_that_pads_left_changes_nothing(decoder, data, tmp_path):
    """Windows are padded on the right, where a causal model reads nothing, whatever the tokenizer would do."""
    left = write_decoder(tmp_path / "left", padding_side="left")
    expected = tiny_text.passed(TASK, decoder, data, tmp_path / "one")
    found = tiny_text.passed(TASK, left, data, tmp_path / "two")
    np.testing.assert_allclose(found.predictions, expected.predictions, rtol=1e-5)


def figures(folder, baseline, model, data):
    """The fidelity of one decoder to another on a data set."""
    passes = [
        tiny_text.passed(TASK, each, data, folder / name) for name, each in (("before", baseline), ("after", model))
    ]
    rows = Rows(passes[0].prepared)
    return compare_outputs(TextGeneration(), rows, folder / "before" / "predicted", folder / "after" / "predicted", 0)


def test_the_divergence_is_that_of_the_whole_vocabulary(decoder, data, tmp_path):
    """On a vocabulary below the number of kept tokens the mean divergence is PyTorch's, over the predicted tokens, and
    the agreement the share of equal most likely tokens; the model itself has 0 and 1.
    """
    noisy = write_decoder(tmp_path / "noisy", noise=0.05)
    found = figures(tmp_path, decoder, noisy, data)
    divergences, equal = [], []
    for ids in token_ids(decoder):
        for place in range(1, len(ids)):
            start = next(start for start in range(0, len(ids), MAXIMUM // 2) if start + MAXIMUM > place)
            before, after = (log_probabilities(model, ids[start:place])[-1] for model in (decoder, noisy))
            divergences.append(float((before.exp() * (before - after)).sum()))
            equal.append(int(before.argmax()) == int(after.argmax()))
    assert found["kl_mean"].value == pytest.approx(np.mean(divergences), rel=1e-4)
    assert found["kl_max"].value == pytest.approx(np.max(divergences), rel=1e-4)
    assert found["agreement"].value == np.mean(equal) < 1

    (tmp_path / "same").mkdir()
    same = figures(tmp_path / "same", decoder, decoder, data)
    assert same["kl_mean"].value == same["kl_max"].value == 0
    assert same["agreement"].value == 1


def test_outputs_that_are_not_finite_are_refused(tmp_path):
    """A model that gives no numbers has no perplexity that could hide it."""
    from benchcard.errors import ArtifactError

    logits = np.full((1, 3, 9), np.nan, dtype=np.float32)
    inputs = {"input_ids": np.asarray([[1, 2, 3]]), "attention_mask": np.ones((1, 3), dtype=np.int64)}
    kept = TextGeneration().kept({"logits": logits}, inputs, {})
    with pytest.raises(ArtifactError, match="not finite"):
        write_predictions(tmp_path, [{name: values[0] for name, values in kept.items()}], [0.0])


def test_batches_are_small_where_the_vocabulary_is_large(tmp_path, data):
    """The batches of a model hold fewer windows than those of one with the same inputs and fewer outputs."""
    sizes = []
    for vocabulary in (WORDS, 400_000):
        model = tmp_path / str(vocabulary)
        tiny_text.write_tokenizer(model, MAXIMUM, model_input_names=["input_ids", "attention_mask"])
        (model / "config.json").write_text(f'{{"model_type": "gpt2", "vocab_size": {vocabulary}, "n_positions": 32}}')
        tiny_text.prepare(TASK, model, data, model / "rows")
        items = Rows(model / "rows").items
        sizes.append(len(next(items.batches())[0]))
    assert sizes[1] == 1 < sizes[0]


@pytest.mark.parametrize(("task", "labels"), [(TASK, None), ("token-classification", 2)])
def test_logits_of_tokens_are_no_labels(tmp_path, task, labels):
    """A given graph of a language model is not refused because its configuration names two labels, as many do."""
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "id2label": {"0": "LABEL_0", "1": "LABEL_1"}}')
    np.savez(tmp_path / "inputs.npz", input_ids=np.zeros((1, 3), dtype=np.int64))
    request = models.ExportRequest(
        model={}, model_folder=tmp_path, task=task, opset=None, from_transformers=False, file_name=None
    )
    example = Outcome("shape", "", tmp_path, ShapeOutcome(input_length=3))
    assert models._contract(request, example, {}).labels == labels


def test_a_graph_with_a_cache_has_the_figures_of_one_without(decoder, data, tmp_path):
    """In float32, with an empty cache, perplexity and each kept probability are those of the graph without a cache, and
    those of PyTorch; there is no note that generation was not timed.
    """
    from benchcard.export.export import export_model

    passes = {}
    for name, with_cache in (("plain", False), ("cached", True)):
        export_model(decoder, TASK, None, tmp_path / name / "graph", with_cache=with_cache)
        where, graph = tmp_path / name, tmp_path / name / "graph" / "model.onnx"
        arguments = {"window": 12, "use_cache": with_cache}
        passes[name] = tiny_text.passed(TASK, decoder, data, where, ("perplexity",), graph=graph, task_args=arguments)
    plain, cached = passes["plain"], passes["cached"]
    assert cached.scored.metrics["perplexity"] == pytest.approx(plain.scored.metrics["perplexity"], rel=1e-6)
    assert cached.scored.metrics["perplexity"] == pytest.approx(plain_perplexity(decoder, 12, 6)[0], rel=1e-5)
    for name in ("log_probs", "top_log_probs"):
        for found, expected in zip(items_of(cached.kept, name), items_of(plain.kept, name), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)
    assert plain.notes[0].endswith("was not timed")
    assert cached.notes == plain.notes[1:]


def test_timed_inputs_are_a_prompt_and_a_token_after_it(decoder):
    """The prompt has an empty cache, and the next token one of `input_length` tokens; both have as many heads as the
    model, and a mask over all tokens. The default length leaves room for a token.
    """
    task = TextGeneration()
    assert task.phases({}) == task.phases({"use_cache": False}) == ()
    assert task.phases({"use_cache": True}) == ("token", "prompt")
    for phase, tokens, past in (("prompt", 7, 0), ("token", 1, 7)):
        arrays, length = task.inputs(decoder, 3, 7, 0, phase)
        assert length == 7
        assert arrays["input_ids"].shape == (3, tokens)
        assert arrays["attention_mask"].shape == (3, 7 + (phase == "token"))
        assert arrays["attention_mask"].all()
        pasts = {name: array for name, array in arrays.items() if name.startswith("past_key_values.")}
        assert list(pasts) == [f"past_key_values.{layer}.{part}" for layer in (0, 1) for part in ("key", "value")]
        assert {array.shape for array in pasts.values()} == {(3, 2, past, 8)}
        assert {array.dtype for array in pasts.values()} == {np.dtype(np.float32)}
        assert task.inputs(decoder, 1, None, 0, phase)[1] == MAXIMUM - 1


@pytest.mark.parametrize("length", [MAXIMUM, MAXIMUM + 8])
def test_a_context_without_room_for_the_next_token_is_a_mistake(decoder, length):
    """It names the longest length that works, which does."""
    task = TextGeneration()
    with pytest.raises(SpecError) as raised:
        task.inputs(decoder, 1, length, 0, "token")
    (mistake,) = raised.value.mistakes
    assert (mistake.place, mistake.found) == ("$.input_lengths", str(length))
    assert mistake.expected.startswith("at most 31, ")
    assert task.inputs(decoder, 1, 31, 0, "token")[0]["attention_mask"].shape == (1, MAXIMUM)


def test_a_model_without_a_cache_is_refused_before_anything_slow(data, tmp_path):
    """The data of a state-space model are not even prepared."""
    tiny_text.write_tokenizer(tmp_path, MAXIMUM)
    (tmp_path / "config.json").write_text('{"model_type": "mamba", "vocab_size": 30, "num_hidden_layers": 2}')
    with pytest.raises(SpecError, match="a model of the type `mamba`"):
        tiny_text.prepare(TASK, tmp_path, data, tmp_path / "rows", task_args={"use_cache": True})


@pytest.mark.slow
def test_a_run_times_the_prompt_and_each_next_token(decoder, data, tmp_path):
    """Float32, float16, dynamic int8, and weights of 4 and 8 bits, PyTorch and OpenVINO are timed in both phases, which
    frames, choice, card and reader tell apart, with the longest context that leaves room for a token.
    """
    from benchcard import Benchmark, Results
    from benchcard.errors import BenchcardError
    from benchcard.publishing.bundle import latencies_frame

    frameworks = ["onnxruntime", "pytorch", *(["openvino"] if importlib.util.find_spec("openvino") else [])]
    benchmark = Benchmark(
        task=TASK,
        model=decoder,
        dataset={"path": data, "eval_split": "validation"},
        grid={
            "framework": frameworks,
            "apply_quantization": [False, True],
            "quantization_approach": ["dynamic", "weight_only"],
            "bits": [4, 8],
            "dtype": [None, "float16"],
        },
        fixed={"price_per_hour": 1.0, "block_size": 16},
        task_args={"use_cache": True},
        input_lengths=[MAXIMUM - 1],
        batch_sizes=[2],
        duration=0.2,
    )
    results = benchmark.run(tmp_path / "run", progress=False)
    time = results.time
    assert results.quality["perplexity"].notna().all()
    assert set(time["row"]) == set(range(len(results.plan)))
    assert time["failure"].isna().all()
    tokens = time["input_length"].where(time["phase"] == "prompt", 1)
    np.testing.assert_allclose(time["tokens_per_s"], tokens * time["throughput_per_s"])
    assert list(results.noise["phase"]) == ["token", "prompt"]
    assert set(latencies_frame(results)["phase"]) == {"token", "prompt"}

    gains = {phase: results.gains("latency", phase) for phase in (None, "token", "prompt")}
    assert {gain.shape.phase for gain in gains["token"].by_row[1]} == {"token"}
    assert len(gains["prompt"].by_row[1]) + len(gains["token"].by_row[1]) == len(gains[None].by_row[1])
    assert gains["token"].costs[0] == time["latency_mean_ms"][0] != gains["prompt"].costs[0]
    assert results.best() == results.best(phase="token")
    assert results.best(phase="prompt").row is not None
    with pytest.raises(BenchcardError, match="no phase `decode` in this run; its phases are: token, prompt"):
        results.best(phase="decode")
    cheapest = results.cheapest()
    assert cheapest.shape.phase == "token"
    assert "per million tokens at 2x31 (time per token)" in str(cheapest)

    card = str(results.card())
    assert "Times are at batch size 2, input length 31." in card
    read = Results.from_card(card)
    assert [shape.phase for shape in read.facts.shapes] == ["token", "prompt"]
    assert set(read.time["phase"]) == {"token", "prompt"}
    verdicts = results.verify(card).frame
    for name in PHASES.values():
        assert "different" not in set(verdicts["verdict"][verdicts["figure"].str.endswith(f"({name})")])
    assert set(verdicts["verdict"][verdicts["figure"] == "latency_mean_ms, 2x31 (time per token)"]) >= {"reproduced"}


@pytest.mark.slow
def test_a_run_counts_tokens_and_chooses_by_the_divergence(decoder, data, tmp_path):
    """The dynamic model of a run has a small divergence, tokens per second are batch size times length over latency,
    and the divergence decides, as the card says; another metric decides if it is asked for.
    """
    from benchcard import Benchmark

    benchmark = Benchmark(
        task=TASK,
        model=decoder,
        dataset={"path": data, "eval_split": "validation"},
        grid={"apply_quantization": [False, True], "framework": ["onnxruntime", "pytorch"]},
        fixed={"quantization_approach": "dynamic"},
        input_lengths=[8],
        batch_sizes=[3],
        duration=0.2,
    )
    results = benchmark.run(tmp_path / "run", progress=False)
    assert results.failures.empty
    quality = results.quality.set_index("row")
    assert quality["perplexity"].notna().all()
    quantized = quality["apply_quantization"].eq(True)
    assert 1e-7 < quality["kl_mean"][quantized].iloc[0] < 0.1
    assert quality["kl_mean"][quality["framework"] == "pytorch"].iloc[0] < 1e-7
    time = results.time
    np.testing.assert_allclose(time["tokens_per_s"], 8 * time["throughput_per_s"])
    assert results.best().metric == "kl_mean"
    assert results.best().max_drop == 0.05
    assert results.best(metric="perplexity").metric == "perplexity"
    assert results.best(metric="agreement").metric == "agreement"
    assert set(results.pareto()["row"]) <= set(quality.index)
    card = str(results.card())
    assert "prefill (tokens/s)" in card
    assert "kl_mean" in card
