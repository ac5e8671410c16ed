"""OpenVINO gives what PyTorch gives, runs with the settings that were asked for, and stores what it says it stores."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
import tiny_run
import tiny_text
from hub_fixtures import MINE, hub
from tasks.test_onnxruntime import ROWS, agree, exported, passed
from tiny_graphs import normal, saved, written

from benchcard import Benchmark, registry
from benchcard.backends.parcel import requirements
from benchcard.errors import ArtifactError, BenchcardError, SpecError
from benchcard.evaluation.rows import read_predictions
from benchcard.steps import evaluate, models
from benchcard.steps.step import Outcome

# They are not imported here: that would send usage data, which the framework prevents.
if not (find_spec("openvino") and find_spec("nncf")):
    pytest.skip("the extra `openvino` is not installed", allow_module_level=True)

__all__ = ["hub"]

# A hidden layer of 64 numbers: wide enough for groups of 32, too narrow for NNCF's own 128.
PERCEPTRON = (
    '<ir_version: 8, opset_import: ["" : 17]> g (float[b, 64] x) => (float[b, 64] y) '
    "{ h = MatMul(x, u) r = Relu(h) l = MatMul(r, v) y = MatMul(l, w) }"
)


def framework():
    """The framework."""
    return registry.framework("openvino")


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A perceptron with three layers."""
    weights = {name: 0.1 * normal(64, 64, seed=seed) for seed, name in enumerate("uvw")}
    return saved(written(PERCEPTRON, weights), tmp_path_factory.mktemp("graph") / "model.onnx")


@pytest.fixture
def converted(graph, tmp_path):
    """A function that converts the perceptron, calibrated on 16 samples, and returns what was made and its folder."""

    def convert(samples=None, **arguments):
        given = [{"x": normal(1, 64, seed=seed)} for seed in range(16)] if samples is None else samples
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return framework().convert(graph, folder, arguments, given), folder

    return convert


def reference(graph, inputs):
    """What ONNX Runtime gives."""
    return registry.framework("onnxruntime").open(graph, {})({"x": inputs})["y"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ROWS)
def test_openvino_predicts_what_pytorch_predicts(task, tmp_path):
    """In float32, at lengths and batches that the export has not seen, padded batches and all."""
    torch, model = passed(task, tmp_path)
    (tmp_path / "ir").mkdir()
    graph = exported(task, model, tmp_path)
    path = tmp_path / "ir" / framework().convert(graph, tmp_path / "ir", {}, ()).file
    request = tiny_text.evaluate_request(task, torch.prepared, path, framework="openvino")
    outcome = evaluate.evaluate(request, tmp_path / "ir", lambda done, total: None)
    predictions, kept = read_predictions(tmp_path / "ir")
    agree(task, predictions, kept, torch)
    assert not [kernel for kernel in outcome.kernels if kernel.numbers == "8 bits"]
    assert sum(kernel.time_share for kernel in outcome.kernels) == pytest.approx(1)


def test_each_setting_is_read_back(converted):
    """The settings that the runtime reports are those asked for, and the defaults are float32 without pinning."""
    made, folder = converted()
    facts = framework().open(folder / made.file, {}).facts
    expected = {"performance_hint": "LATENCY", "inference_precision": "f32", "enable_cpu_pinning": False}
    assert facts.items() >= {**expected, "num_streams": 1}.items()
    settings = {
        "intra_op_num_threads": 1,
        "performance_hint": "THROUGHPUT",
        "enable_hyper_threading": False,
        "dynamic_quantization_group_size": 64,
    }
    model = framework().open(folder / made.file, {**settings, "task": "any", "allow_spinning": True})
    assert model.facts.items() >= settings.items()
    assert model.facts["runtime"].startswith("openvino 20")
    assert framework().running == {*settings, *expected} - {"intra_op_num_threads"}


def test_the_settings_that_depend_on_the_processor_are_those_of_the_runtime(converted):
    """Where a processor cannot compute in bfloat16 or pin threads, the facts say what is used in place of it."""
    import openvino

    made, folder = converted()
    asked = {"INFERENCE_PRECISION_HINT": "bf16", "ENABLE_CPU_PINNING": True}
    compiled = openvino.Core().compile_model(str(folder / made.file), "CPU", asked)
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    facts = framework().open(folder / made.file, {"inference_precision": "bf16", "enable_cpu_pinning": True}).facts
    assert facts["inference_precision"] == compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    assert facts["enable_cpu_pinning"] == compiled.get_property("ENABLE_CPU_PINNING")
    if before is not None:
        os.sched_setaffinity(0, before)


def test_a_call_takes_what_the_model_takes_in_its_types(converted, graph):
    """Unknown inputs are left out, numbers are cast, and a later call does not change the outputs of an earlier one."""
    made, folder = converted()
    model = framework().open(folder / made.file, {})
    inputs = normal(3, 64)
    outputs = model({"x": inputs.astype(np.float64)[:, ::1], "z": np.zeros(1)})
    np.testing.assert_allclose(outputs["y"], reference(graph, inputs), atol=1e-5)
    kept = outputs["y"].copy()
    model({"x": normal(3, 64, seed=9)})
    np.testing.assert_array_equal(outputs["y"], kept)


def test_outputs_have_the_names_of_the_graph(tmp_path):
    """In their order, also where two of them are the same tensor, or an inner tensor is an output with another name."""
    graph = written(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[b] x) => (float[b] z, float[b] Out_12, float[b] last, '
        "float[b] w) { a = Relu(x) z = Identity(a) Out_12 = Neg(a) last = Identity(z) w = Identity(x) }"
    )
    made = framework().convert(saved(graph, tmp_path / "model.onnx"), tmp_path, {}, ())
    outputs = framework().open(tmp_path / made.file, {})({"x": np.array([1, -2])})
    assert [*outputs] == ["z", "Out_12", "last", "w"]
    assert [values.tolist() for values in outputs.values()] == [[1, 0], [-1, 0], [1, 0], [1, -2]]


def test_a_fixed_size_is_a_fact(tmp_path):
    """A model that takes one batch size and number of tokens says so, as a session of ONNX Runtime does."""
    graph = written(
        '<ir_version: 8, opset_import: ["" : 17]> g (int64[2, 5] input_ids) => (int64[2, 5] y) '
        "{ y = Add(input_ids, input_ids) }"
    )
    made = framework().convert(saved(graph, tmp_path / "model.onnx"), tmp_path, {}, ())
    facts = framework().open(tmp_path / made.file, {}).facts
    assert (facts["batch_size"], facts["input_length"]) == (2, 5)


@pytest.mark.parametrize(
    ("arguments", "bits", "error"),
    [
        ({}, 32, 1e-5),
        ({"dtype": "fp16"}, 16, 1e-2),
        ({"dtype": "int8_weights"}, 8, 2e-2),
        ({"dtype": "int8_weights", "symmetric": True}, 8, 2e-2),
        ({"dtype": "int8"}, 8, 0.2),
        ({"dtype": "int4_weights"}, 4, 0.5),
        ({"dtype": "int4_weights", "group_size": 32, "symmetric": True}, 4, 0.5),
        ({"dtype": "int4_weights", "group_size": -1, "ratio": 0.5}, 6, 0.5),
    ],
)
def test_weights_take_the_bits_of_their_dtype(converted, graph, arguments, bits, error):
    """Beside the scales, and the last layer, which NNCF keeps in 8 bits where others have 4; outputs stay close."""
    made, folder = converted(**arguments)
    last_layer = (8 - bits) / 3 if bits < 8 else 0
    assert bits <= made.weights.bits / (3 * 64 * 64) < bits + last_layer + 2
    assert made.quantized == (bits <= 8)
    inputs = normal(5, 64, seed=3)
    outputs = framework().open(folder / made.file, {})({"x": inputs})["y"]
    expected = reference(graph, inputs)
    assert np.std(outputs - expected) < error * np.std(expected)


def test_what_is_stored_is_counted(converted):
    """By type: two layers in 4 bits, the last in 8 with its zero points, scales in 16."""
    made, _ = converted(dtype="int4_weights", group_size=64, symmetric=True)
    assert made.weights.kinds == {"int4": 8192, "uint8": 4160, "float16": 192}
    assert made.weights.bits == 4 * 8192 + 8 * 4160 + 16 * 192
    assert made.weights.dtype == "int4+uint8"


@pytest.mark.parametrize("dtype", [None, "fp16", "int8", "int8_weights", "int4_weights"])
def test_equal_graphs_give_equal_files(converted, dtype):
    """Whatever the process has converted before: OpenVINO numbers the names of layers through."""
    files = []
    for _ in range(2):
        _, folder = converted(dtype=dtype)
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert files[0].keys() == {"openvino_model.xml", "openvino_model.bin"}
    assert files[0] == files[1]


def test_calibration_decides_the_scales(converted):
    """Samples that are ten times as large give other scales, and all samples are read."""
    read = []

    class Samples:
        def __iter__(self):
            for seed in range(20):
                read.append(seed)
                yield {"x": 10 * normal(1, 64, seed=seed)}

    _, plain = converted(dtype="int8")
    _, wide = converted(Samples(), dtype="int8")
    assert set(read) == set(range(20))
    assert (plain / "openvino_model.bin").read_bytes() != (wide / "openvino_model.bin").read_bytes()


def test_int8_computes_in_8_bits_and_compressed_weights_do_not(converted):
    """The kernels say which: products in 8 bits after NNCF's quantization, in float with compressed weights."""
    numbers = {}
    for dtype in (None, "int8", "int8_weights"):
        made, folder = converted(dtype=dtype)
        kernels = framework().open_profiled(folder / made.file, {}).kernels({"x": normal(2, 64)})
        products = [kernel for kernel in kernels if kernel.name.startswith(("FullyConnected", "MatMul"))]
        numbers[dtype] = {kernel.numbers for kernel in products}
        assert sum(kernel.nodes for kernel in products) == 3
    assert numbers == {None: {"float"}, "int8": {"8 bits"}, "int8_weights": {"float"}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"group_size": 32}, r"`group_size` only with a dtype of int4_weights, found it with a dtype of float32"),
        ({"dtype": "int8_weights", "ratio": 0.5}, r"`ratio` only with a dtype of int4_weights"),
        ({"dtype": "int8", "symmetric": True}, r"`symmetric` only with a dtype of int8_weights or int4_weights"),
    ],
)
def test_an_argument_that_does_not_go_with_the_dtype_is_a_mistake(converted, arguments, message):
    """It would have no effect."""
    with pytest.raises(SpecError, match=message):
        converted(**arguments)


def test_what_cannot_be_converted_is_told(converted, tmp_path):
    """An operator without a rule, a weight that does not fit into groups, and int8 without samples."""
    graph = written(
        '<ir_version: 8, opset_import: ["my.own" : 1]> g (float[b] x) => (float[b] y) { y = my.own.Odd(x) }'
    )
    with pytest.raises(ArtifactError, match=r"cannot read odd\.onnx: FrontEnd.*my\.own\.Odd$"):
        framework().convert(saved(graph, tmp_path / "odd.onnx"), tmp_path, {}, ())
    with pytest.raises(ArtifactError, match=r"groups of 128, as .*channel size: 64.*choose a `group_size`"):
        converted(dtype="int4_weights", group_size=128)
    with pytest.raises(SpecError, match=r"a split to calibrate on.*int8_weights needs none.*calibration_split"):
        converted((), dtype="int8")
    (tmp_path / "openvino_model.xml").write_text("<no>")
    with pytest.raises(ArtifactError, match=r"cannot load openvino_model\.xml"):
        framework().open(tmp_path / "openvino_model.xml", {})


def test_nothing_is_sent_to_anybody():
    """Neither the import of openvino nor that of nncf loads their telemetry, which starts a thread that sends; what the
    runtime needs has no other thread, so that its process can be forked, and no torch.
    """
    code = """
import sys, threading
from benchcard.frameworks import openvino
openvino.OpenVino().import_runtime()
assert threading.active_count() == 1 and "torch" not in sys.modules and "nncf" not in sys.modules
openvino._nncf()
import nncf.telemetry.wrapper as wrapper, openvino.tools.ovc.telemetry_utils as utils
assert not isinstance(wrapper.telemetry, wrapper.NNCFTelemetry)
assert utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
assert "openvino_telemetry" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_the_extra_the_message_says_how_to_install_it(monkeypatch):
    """A spec may name the framework where its packages are missing."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BenchcardError, match=r"needs openvino: pip install 'benchcard\[openvino\]'"):
        framework().import_runtime()


def test_a_step_counts_weights_beside_the_file(graph, tmp_path):
    """The digest of a converted model has those of its weights, so that another training is another model."""
    outcomes = []
    other = onnx.load(graph)
    other.graph.initializer[0].raw_data = normal(64, 64, seed=7).tobytes()
    for number, path in enumerate((graph, saved(other, tmp_path / "other.onnx"), graph)):
        (tmp_path / str(number)).mkdir()
        given = Outcome("export", "", path.parent, models.ModelFile(file=path.name, digest="", size_bytes=1))
        request = models.ConvertRequest(framework="openvino", arguments={}, graph=given)
        (tmp_path / str(number) / "log.txt").write_text(str(number))
        outcomes.append(models.convert(request, tmp_path / str(number), lambda done, total: None))
    assert outcomes[0].digest == outcomes[2].digest != outcomes[1].digest
    xml = [(tmp_path / str(number) / "openvino_model.xml").read_bytes() for number in (0, 1)]
    assert xml[0] == xml[1]


def test_a_job_elsewhere_installs_what_the_framework_needs():
    """The requirements of a parcel have OpenVINO where a row uses it, and not elsewhere."""
    task = "text-classification"
    lines = {line.partition("==")[0]: line.partition("==")[2] for line in requirements(["pytorch", "openvino"], task)}
    assert lines["openvino"] == metadata.version("openvino")
    assert lines["nncf"] == metadata.version("nncf")
    assert not {"openvino", "nncf"} & {line.partition("==")[0] for line in requirements(["onnxruntime"], task)}


GRID = """
grid:
  framework: [pytorch, onnxruntime, openvino]
  quantization_approach: [static]
  apply_quantization: [false, true]
  framework_args.dtype: [null, int8, int8_weights]
fixed: {calibration: {num_calibration_samples: 9}}
framework_args: {intra_op_num_threads: 1}
batch_sizes: [1, 3]
duration: 0.2
warmup_runs: 1
"""


@pytest.fixture(scope="module")
def results(ground, tmp_path_factory):
    """The results of a grid of three frameworks."""
    spec = tiny_run.spec_with(ground, tiny_run.SPEC + GRID, "three.yaml")
    return Benchmark.from_spec(spec).run(tmp_path_factory.mktemp("three") / "run", progress=False)


@pytest.mark.slow
def test_a_grid_of_three_frameworks(results):
    """All rows are timed beside each other and compared with ONNX Runtime, with one number of threads; int8 is
    calibrated on the samples of ONNX Runtime's static rows; reasons and figures say what each model is.
    """
    frame = results.models.set_index("row")
    label = {row.configuration.label: row.configuration.row for row in results.records.records}
    names = ["framework=openvino", "dtype=int8", "dtype=int8_weights"]
    floats, int8, weights = (next(row for text, row in label.items() if text.endswith(name)) for name in names)
    assert results.time["ratio"].notna().all()
    assert set(results.time["threads"]) == {1}
    assert results.baseline == 0
    assert results.quality["framework"][0] == "onnxruntime"
    samples = {record.outcomes.sample.key for record in results.records.records if record.outcomes.sample}
    assert len(samples) == 1
    assert results.quality["kl_mean"][floats] < 1e-10 < results.quality["kl_mean"][int8]
    assert frame["bits_per_weight"][int8] < frame["bits_per_weight"][floats]
    assert frame["bits_per_weight"][floats] == pytest.approx(32, rel=0.1)
    assert frame["bits_per_weight"][weights] < 20
    assert frame["nodes_in_8_bits"][int8] > 0 == frame["nodes_in_8_bits"][weights]
    assert "In 8 bits it computes" in results.explain(int8)
    assert "It is not quantized" not in results.explain(int8) + results.explain(weights)
    assert "It is not quantized" in results.explain(floats)
    assert "None of its kernels computes in 8 bits" in results.explain(weights)
    assert "weights as int8" in results.explain(int8)
    assert results.records.info.versions.keys() >= {"openvino", "nncf"}
    opened = [each for parts in results.records.parts.values() for part in parts for each in part.outcome.opened]
    facts = [each.facts for each in opened if str(each.facts["runtime"]).startswith("openvino")]
    assert {each["enable_cpu_pinning"] for each in facts} == {False}
    assert {each["torch_imported"] for each in facts} == {False}
    if sys.platform == "linux":
        assert {each["forked"] for each in facts} == {True}


@pytest.mark.slow
def test_ir_is_pushed_in_the_layout_that_optimum_intel_loads(results, ground, hub, monkeypatch):
    """`openvino_model.xml` and `.bin` are in the folder `openvino`, `config.json` at the root, where optimum looks for
    it; the lines of the card run as they are printed, and give what was measured.
    """
    row = next(record.configuration.row for record in results.records.records if record.outcomes.convert)
    chosen = [row, row + 1]
    results.push_to_hub(MINE, artifacts=chosen, endpoint=hub.endpoint, token=hub.token)
    files = set(hub.files(MINE))
    pair = ("openvino_model.xml", "openvino_model.bin")
    assert {*(f"openvino/{name}" for name in pair), *(f"openvino_row{row + 1}/{name}" for name in pair)} <= files
    assert "config.json" in files
    card = hub.read(MINE, "README.md").decode()
    size = results.models["size_mb"][row]
    assert re.search(rf"\| `openvino/openvino_model.xml` +\| +{row} \| float32 +\| 3\d\.\d \| +{size:.3g} \|", card)
    assert f'OVModelForImageClassification.from_pretrained("{MINE}", subfolder="openvino")' in card
    assert "\n- quantized\n" in card
    folder = results.path / "repository"
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(hub.read(MINE, name))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo_id, allow_patterns: str(folder))
    monkeypatch.chdir(folder)
    from PIL import Image

    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(folder / "image.png")
    names = {}
    exec(card.split("```python\n")[1].split("```")[0], names)
    pytorch = registry.framework("pytorch").open(ground / "model", {"task": "image-classification"})
    expected = pytorch({"pixel_values": names["inputs"]["pixel_values"]})["logits"]
    np.testing.assert_allclose(names["outputs"]["logits"], expected, atol=1e-4)
