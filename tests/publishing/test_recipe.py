"""The recipes of models: their lines, run as they are printed and without benchcard, make the same graphs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny
import tiny_text
from tasks.test_feature_extraction import settle, write_model

from benchcard import Benchmark, testing
from benchcard.evaluation.features import Features
from benchcard.graphs.files import model_digest
from benchcard.graphs.signature import GraphInput
from benchcard.publishing import recipe
from benchcard.publishing.weights import chosen_weights
from benchcard.quantization.calibration.ranges import Method
from benchcard.sources.resolve import Source
from benchcard.steps import data as data_steps
from benchcard.steps.data import SampleRequest
from benchcard.steps.models import path_of
from benchcard.steps.step import Outcome

# Runs the lines, and names what they imported.
PROGRAM = (
    "import sys\nexec(open('recipe.py').read())\nprint('benchcard' in {name.split('.')[0] for name in sys.modules})"
)
TEXTS = ["a good film", "a bad film", "anna lives in paris", "bob works for acme", "a dull film " * 15, "a bright film"]


def benchmarked(folder, task, model, data, *grids, keys=None):
    """The results of the grids, of which only the models matter."""
    dataset = {"path": str(data), "eval_split": "validation", "calibration_split": "train"}
    dataset |= {"data_keys": keys} if keys else {}
    common = {"task": task, "model": str(model), "dataset": dataset, "duration": 0, "explain": False}
    runs = [Benchmark(**common, grid=grid) for grid in grids]
    return [benchmark.run(folder / f"run{number}", progress=False) for number, benchmark in enumerate(runs)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Rows of every argument that a recipe has, of a classifier of pairs of texts: dynamic and static."""
    folder = tmp_path_factory.mktemp("recipe")
    model = tiny_text.write_model(folder / "model", "ForSequenceClassification", ["no", "yes"])
    tiny_text.write_tokenizer(model)
    rows = {"first": TEXTS * 3, "second": TEXTS[::-1] * 3, "label": ["no", "yes"] * 9}
    data = testing.write_data(folder / "data", {"train": rows, "validation": rows})
    dynamic = {"per_channel": [True], "weights_dtype": ["int8", "uint8"], "node_exclusion": [[], ["gelu"]]}
    dynamic |= {
        "apply_quantization": [False, True],
        "operators_to_quantize": [None, ["MatMul"]],
        "reduce_range": [True],
    }
    static = {"quant_format": ["QDQ", "QOperator"], "calibration": [{"num_calibration_samples": 9}]}
    static |= {"quantization_approach": ["static"], "activations_symmetric": [None, True], "per_channel": [True]}
    static |= {"node_exclusion": [["layernorm"]], "operators_to_quantize": [["MatMul", "Add"]]}
    static |= {"activations_dtype": ["int8", "uint8"]}
    keys = {"primary": "first", "secondary": "second"}
    return benchmarked(folder, "text-classification", model, data, dynamic, static, keys=keys)


@pytest.fixture(scope="module")
def image_results(tmp_path_factory):
    """Rows of every method of calibration, of a classifier of images."""
    folder = tmp_path_factory.mktemp("images")
    model, data = tiny.write_model(folder / "model"), tiny.write_data(folder / "data")
    average, percentile = {"calibration_moving_average": True}, {"method": "percentile"}
    methods = [{}, average, {**average, "calibration_moving_average_constant": 0.3}, percentile]
    methods += [{**percentile, "calibration_histogram_percentile": share} for share in (99.91, 100)]
    methods += [{"method": "entropy"}, {"method": "distribution"}]
    grid = {"quantization_approach": ["static"], "activations_symmetric": [None, False, True]}
    grid |= {"calibration": [{**method, "num_calibration_samples": 9} for method in methods]}
    grid |= {"operators_to_quantize": [["MatMul", "Conv"]]}
    (run,) = benchmarked(folder, "image-classification", model, data, grid)
    return run


def section_of(results, monkeypatch, **changes):
    """The section of all models of a run whose data set counts as one of the Hub."""
    sources = results.records.info.sources
    (model,) = sources.models.values()
    hub = {"local": False, "revision": None, **changes}
    monkeypatch.setattr(type(sources), "dataset", lambda self, arguments: replace(*self.datasets.values(), **hub))
    weights = list(chosen_weights(results, "all"))
    return recipe.section(results, weights, str(model.folder), ["tokenizer.json"], None), weights


def make(card, results, weights, folder):
    """Run the lines of a section in a folder with the float graph, and compare what they make with the models of rows.

    Return the names of the made models.
    """
    graphs = {path_of(record.outcomes.export) for record in results.records.records}
    (folder / "onnx").mkdir()
    for graph in graphs:
        for name in ("model.onnx", "onnx/model.onnx"):
            (folder / name).write_bytes(graph.read_bytes())
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    made = []
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        names = re.findall(r'^quantize_\w+\("[^"]+", "([^"]+)"', block, re.MULTILINE)
        assert len([line for line in block.splitlines() if line]) <= 9 + len(names)
        (folder / "recipe.py").write_text(block)
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        assert done.stdout.splitlines()[-1] == "False"
        made += names
    digests = {model.name: results.records.records[model.row].digest for model in weights}
    differing = [name for name in made if model_digest(folder / name) != digests[name]]
    assert not differing, "\n".join(line for line in card.splitlines() if any(name in line for name in differing))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["dynamic", "static"])
def test_the_lines_make_the_same_graphs(results, approach, tmp_path, monkeypatch):
    """At most ten lines, and one for each further model, whose graphs have the digests of the rows, for every
    combination of arguments; models of one float graph, which may be in the repository, and the same samples share a
    block.
    """
    run = results[approach == "static"]
    assert run.failures.empty, run.failures["message"].tolist()
    card, weights = section_of(run, monkeypatch)
    made = make(card, run, weights, tmp_path)
    assert made == [model.name for model in weights if model.quantized]
    assert len(made) > 3
    assert card.count("```python") == card.count("<summary>") == 1
    assert f"Make {len(made)} models again" in card
    where = {"dynamic": "`onnx/model.onnx`, the float graph in this repository", "static": "`model.onnx`, the float"}
    assert where[approach] in card
    assert "There is no recipe" not in card


@pytest.mark.slow
def test_histograms_have_no_recipe_of_samples_of_different_shapes(results):
    """ONNX Runtime cannot count texts of different lengths together; extremes, and their averages, it can."""
    run = results[1]
    record = run.records.records[0]
    (data,) = run.records.info.sources.datasets.values()
    parameters = record.configuration.parameters
    for change, why in (
        ({"calibration_moving_average": True}, None),
        ({"method": "percentile"}, "by `percentile` takes samples of one shape only"),
        ({"method": "entropy"}, "by `entropy` takes samples of one shape only"),
    ):
        changed = {**parameters, "calibration": {**parameters["calibration"], **change}}
        other = replace(record, configuration=replace(record.configuration, parameters=changed))
        arguments = (other, "model.onnx", "made.onnx", replace(data, local=False), "me/it")
        if why is None:
            assert "'CalibMovingAverage': True" in recipe.make_recipe(*arguments).call
        else:
            with pytest.raises(recipe.NoRecipe, match=why):
                recipe.make_recipe(*arguments)


@pytest.mark.slow
def test_the_lines_make_the_same_graphs_of_images(image_results, tmp_path, monkeypatch):
    """By every method of calibration, also averages in turn and percentiles; a percentile whose place depends on
    rounding has a sentence instead.
    """
    run = image_results
    assert run.failures.empty, run.failures["message"].tolist()
    card, weights = section_of(run, monkeypatch)
    made = make(card, run, weights, tmp_path)
    methods = {model.name: run.records.records[model.row].configuration["calibration"] for model in weights}
    uncertain = [name for name in methods if methods[name].get("calibration_histogram_percentile") == 100]
    assert sorted(made) == sorted(set(methods) - set(uncertain))
    assert {methods[name]["method"] for name in made} >= {"percentile", "distribution"}
    assert any("calibration_moving_average_constant" in methods[name] for name in made)
    names = ", ".join(f"`{name}`" for name in uncertain)
    assert f"There is no recipe for {names} with onnxruntime alone: ranges by `percentile` may differ" in card


LONG = " ".join(["anna works for acme in paris and bob lives in rome"] * 8)
IMAGES = {"L": (5, 17), "RGBA": (3, 4), "P": (30, 7)}


def sampled(task, model, data, folder, **fields):
    """The outcome of a calibration sample of all rows but one of `validation`."""
    import datasets

    folder.mkdir()
    (rows,) = datasets.load_dataset(str(data)).values()
    asked = {"num_samples": len(rows) - 1, "seed": 0, **fields}
    request = tiny_text.rows_request(task, model, data, SampleRequest, **asked)
    return Outcome("sample", "", folder, data_steps.sample(request, folder, lambda done, total: None))


def fed(sample, model, data, inputs, method=None):
    """The feeds that the lines of a recipe make of a sample."""
    source = Source("me/it", str(data), local=False, revision=None, digest="")
    dataset = {"calibration_split": "validation"}
    imports, lines = recipe.sample_lines(sample, dataset, source, str(model), inputs, method or Method())
    names = {}
    exec("\n".join(["from onnxruntime.quantization import CalibrationDataReader", *imports, *lines]), names)
    reader = names["reader"]()
    return list(iter(reader.get_next, None))


def text_inputs(length=None, dtype="int64", size=None):
    """The inputs of a graph of texts."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return [GraphInput(name, np.dtype(dtype), (size, length)) for name in names]


def check_feeds(sample, feeds, length=None):
    """Check that the feeds are the items of a sample, one at a time."""
    items = Features(sample.folder).padded_to(length)
    assert len(feeds) == len(items) > 2
    for index, feed in enumerate(feeds):
        expected = items.stacked(np.array([index]))
        assert feed.keys() == expected.keys()
        for name in feed:
            np.testing.assert_array_equal(feed[name], expected[name], strict=True)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("length", [None, 40])
@pytest.mark.parametrize("task", ["text-classification", "token-classification", "question-answering"])
def test_the_code_of_a_task_on_texts_makes_its_items(tmp_path, task, side, length):
    """Cut texts, sentences without words, overlapping windows; padded on either side for a graph of one length."""
    kind = "".join(part.title() for part in task.replace("text", "sequence").split("-"))
    model = tiny_text.write_model(tmp_path / "model", f"For{kind}", None if "question" in task else ["O", "B-X"])
    tiny_text.write_tokenizer(model, padding_side=side)
    texts = ["  Anna lives in", "the film in Rome", LONG[:40], "A bright film"]
    columns = {"text": texts, "tokens": [text.split() for text in [*texts[:2], "", LONG]]}
    columns |= {"question": texts, "context": [LONG, *texts[1:]]}
    data = tiny_text.write_data(tmp_path / "data", columns)
    sample = sampled(task, model, data, tmp_path / "sample", num_samples=4)
    check_feeds(sample, fed(sample, model, data, text_inputs(length)), length)


def test_the_code_of_embeddings_makes_both_texts(tmp_path):
    """With the prompt and the lower case that the model's folder asks for, cut to its own maximum."""
    reading = {"max_seq_length": 12, "do_lower_case": True}
    model = write_model(tmp_path / "model", transformer=reading)
    settle(model, prompts={"q": "Film: "}, default_prompt_name="q")
    data = tiny_text.write_data(tmp_path / "data", {"sentence1": TEXTS, "sentence2": TEXTS[::-1]})
    sample = sampled("sentence-similarity", model, data, tmp_path / "sample")
    feeds = fed(sample, model, data, text_inputs())
    assert len(feeds) == 2 * (len(TEXTS) - 1)
    check_feeds(sample, feeds)
    assert fed(sample, model, data, text_inputs(dtype="int32"))[0]["input_ids"].dtype == np.int32


@pytest.mark.parametrize("channels", [1, 3])
def test_the_code_of_images_makes_their_arrays(tmp_path, channels):
    """Of images of any mode and size, as gray ones or in colours."""
    import datasets
    from PIL import Image

    model = testing.write_image_model(tmp_path / "model", num_channels=channels)
    images = [Image.effect_noise(size, 64).convert(mode) for mode, size in IMAGES.items()] * 2
    data = tiny_text.write_data(tmp_path / "data", {"image": images}, {"image": datasets.Image()})
    sample = sampled("image-classification", model, data, tmp_path / "sample")
    inputs = [GraphInput("pixel_values", np.dtype("float32"), (None, channels, 8, 8))]
    check_feeds(sample, fed(sample, model, data, inputs))


def test_words_get_the_space_that_they_were_read_with(tmp_path):
    """A tokenizer that tells words by the space before them is loaded as it was for the sample."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaTokenizerFast

    special = {name: index for index, name in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])}
    vocab = {**special, **{letter: 5 + index for index, letter in enumerate(sorted(ByteLevel.alphabet()))}}
    model = tiny_text.write_model(tmp_path / "model", "ForTokenClassification", ["O", "B-X"])
    RobertaTokenizerFast(vocab=vocab, merges=[], model_max_length=32).save_pretrained(model)
    data = tiny_text.write_data(tmp_path / "data", {"tokens": [["anna", "in"], ["bob"], ["a"], ["film", "in"]]})
    sample = sampled("token-classification", model, data, tmp_path / "sample")
    assert sample.values.code.options == {"add_prefix_space": True}
    check_feeds(sample, fed(sample, model, data, text_inputs()[:2]))


def test_there_is_no_recipe_where_lines_would_not_make_the_samples(tmp_path):
    """Of samples that are not on the Hub or need more than a processor, without a processor, for a graph of a fixed
    batch size; each with its reason.
    """
    model = tiny_text.write_model(tmp_path / "model", "ForSequenceClassification", ["no", "yes"])
    tiny_text.write_tokenizer(model)
    data = tiny_text.write_data(tmp_path / "data", {"text": TEXTS})
    sample = sampled("text-classification", model, data, tmp_path / "sample")
    trusted = sampled("text-classification", model, data, tmp_path / "trusted", trust_remote_code=True)
    source = Source("me/it", str(data), local=False, revision=None, digest="")
    cases = [
        ((sample, replace(source, local=True), "me/it", text_inputs()), "not on the Hub"),
        ((sample, source, None, text_inputs()), "not on the Hub"),
        ((trusted, source, "me/it", text_inputs()), "more than what the processor makes"),
        ((sample, source, "me/it", text_inputs(size=4)), "the graph takes 4 samples a call"),
    ]
    for (outcome, place, processor, inputs), why in cases:
        with pytest.raises(recipe.NoRecipe, match=why):
            recipe.sample_lines(outcome, {"calibration_split": "x"}, place, processor, inputs, Method())
