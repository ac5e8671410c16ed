"""OpenVINO on the CPU: IR that is made of an ONNX graph, in float32 or compressed and quantized by NNCF.

A process that runs models imports openvino alone; NNCF, which imports torch, is loaded where it converts a graph.

Source: https://docs.openvino.ai/2026/openvino-workflow/model-optimization.html;
https://docs.openvino.ai/2026/openvino-workflow/running-inference/inference-devices-and-modes/cpu-device.html
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from benchcard.errors import ArtifactError, BenchcardError, Mistake, SpecError
from benchcard.frameworks.kernels import MOVES, Kernel, Node, Numbers, merge_calls, profiled_calls
from benchcard.frameworks.protocol import Converted, Snippet
from benchcard.graphs.cache import feed
from benchcard.graphs.signature import LAYOUTS, GraphInput, only_batch_size, only_length
from benchcard.spec.schema import Boolean, MappingOf, Number, Optional, Text, ValueType

if TYPE_CHECKING:
    import openvino

    from benchcard.frameworks.protocol import Arrays, Options, Outputs, Precision
    from benchcard.graphs.weights import StoredWeights

# The names that optimum-intel loads from a repository or a folder of it.
# Source: optimum-intel, optimum/intel/openvino/utils.py.
_XML = "openvino_model.xml"
_CLASSES = {
    "image-classification": "OVModelForImageClassification",
    "text-classification": "OVModelForSequenceClassification",
    "token-classification": "OVModelForTokenClassification",
    "question-answering": "OVModelForQuestionAnswering",
    "feature-extraction": "OVModelForFeatureExtraction",
    "sentence-similarity": "OVModelForFeatureExtraction",
    "text-retrieval": "OVModelForFeatureExtraction",
}
_WEIGHTS = ("int8_weights", "int4_weights")
_DTYPES = ("fp16", "int8", *_WEIGHTS)
# The properties of OpenVINO that arguments set, and that are read back.
_PROPERTIES = {
    "intra_op_num_threads": "INFERENCE_NUM_THREADS",
    "performance_hint": "PERFORMANCE_HINT",
    "inference_precision": "INFERENCE_PRECISION_HINT",
    "enable_cpu_pinning": "ENABLE_CPU_PINNING",
    "enable_hyper_threading": "ENABLE_HYPER_THREADING",
    "dynamic_quantization_group_size": "DYNAMIC_QUANTIZATION_GROUP_SIZE",
}
# OpenVINO's own defaults are bfloat16 on processors that have it, where float32 was asked for, and threads that are
# tied to processors, where other programs may be working.
_DEFAULTS = {"performance_hint": "LATENCY", "inference_precision": "f32", "enable_cpu_pinning": False}
# What moves values, converts their type or compares them, beside the operators of ONNX that do.
_OTHERS = (
    "Broadcast Convert Equal GatherCompressed Greater GreaterEqual Less LessEqual LogicalAnd LogicalNot LogicalOr "
    "LogicalXor NonZero NotEqual Range Reorder Select ShapeOf StridedSlice VariadicSplit"
)
_FLOATS = ("f32", "f16", "bf16", "f64")
# The names of types in the rest of benchcard, and the types of numbers that are no weights.
_TYPES = {"i8": "int8", "u8": "uint8", "i4": "int4", "u4": "uint4"}
_TYPES |= {f"f{bits}": f"float{bits}" for bits in (16, 32, 64)} | {"bf16": "bfloat16"}
_NO_WEIGHTS = ("i32", "i64", "boolean")
# Names that OpenVINO numbers by what else the process has done. Those of results are the names of outputs.
_NUMBERED = re.compile(r'(<layer id="(\d+)" name="[A-Z][A-Za-z]*)(?:_\d+)+(?=["_/])(?![^>]*type="Result")')


class OpenVino:
    """The framework `openvino`: IR in float32, float16, int8 by NNCF, or with weights of 8 or 4 bits."""

    parameters = frozenset({"from_transformers", "calibration"})
    arguments: Mapping[str, ValueType] = MappingProxyType(
        {
            "opset": Number(11, 23, whole=True),
            "dtype": Optional(Text(lambda: _DTYPES)),
            "symmetric": Boolean(),
            "group_size": Number(-1, whole=True),
            "ratio": Number(0, 1),
            "intra_op_num_threads": Number(1, whole=True),
            "performance_hint": Text(lambda: ("LATENCY", "THROUGHPUT")),
            "inference_precision": Text(lambda: _FLOATS[:3]),
            "enable_cpu_pinning": Boolean(),
            "enable_hyper_threading": Boolean(),
            "dynamic_quantization_group_size": Number(0, whole=True),
            "file_name": Text(),
            "inputs": MappingOf(open=True, each=Text()),
            "outputs": MappingOf(open=True, each=Text()),
            "layout": Text(lambda: LAYOUTS),
        }
    )
    running = frozenset(_PROPERTIES) - {"intra_op_num_threads"}
    engine = "openvino"
    format = "openvino"
    forkable = True
    libraries = ("openvino", "nncf")
    precisions: Mapping[str, Mapping[str, Precision]] = MappingProxyType(
        {
            "framework_args.dtype": {"fp16": "16 bits", "int8": "calibrated", **dict.fromkeys(_WEIGHTS, "quantized")},
            "framework_args.inference_precision": dict.fromkeys(("f16", "bf16"), "16 bits"),
        }
    )

    def import_runtime(self) -> None:
        """Import openvino."""
        _runtime()

    def open(self, model: Path, options: Options) -> Compiled:
        """Return the IR, compiled for the CPU; an `ArtifactError` says why OpenVINO cannot load it."""
        return Compiled(model, options)

    def open_profiled(self, model: Path, options: Options) -> Compiled:
        """Return the IR, compiled for the CPU; each such model can report its `kernels`."""
        return Compiled(model, options)

    def convert(self, graph: Path, target: Path, arguments: Options, samples: Iterable[Arrays]) -> Converted:
        """Write a graph as IR in the requested `dtype`.

        Raises:
            ArtifactError: OpenVINO has no rule for an operator of the graph, or a weight cannot be grouped.
            SpecError: An argument does not go with the `dtype`, or there are no samples to calibrate on.
        """
        ov, dtype = _runtime(), arguments.get("dtype")
        if mistakes := list(_mistakes(arguments)):
            raise SpecError(mistakes)
        try:
            model = ov.Core().read_model(str(graph))
        except RuntimeError as error:
            raise ArtifactError(f"openvino {_version(ov)} cannot read {graph.name}: {_reason(error)}") from error
        if dtype == "int8":
            model = _quantize(model, samples)
        elif dtype in _WEIGHTS:
            model = _compress(model, arguments)
        ov.save_model(model, str(target / _XML), compress_to_fp16=dtype == "fp16")
        file = target / _XML
        file.write_text(_NUMBERED.sub(r"\1_\2", file.read_text(encoding="utf-8")), encoding="utf-8")
        return Converted(_XML, dtype in ("int8", *_WEIGHTS), _stored(ov.Core().read_model(str(file))))

    def snippet(self, repo_id: str, path: str, task: str) -> Snippet:
        """Return the lines that open and call a published model."""
        folder = path.rpartition("/")[0]
        optimum = f'{_CLASSES.get(task, "OVModel")}.from_pretrained("{repo_id}", subfolder="{folder}")'
        precision = '{"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16, where the processor has it'
        return Snippet(
            imports=("import openvino",),
            opening=(
                f"# with optimum-intel: {optimum}",
                f"settings = {precision}",
                f'model = openvino.compile_model(f"{{folder}}/{path}", "CPU", settings)',
            ),
            calling=("outputs = model({port.any_name: inputs[port.any_name] for port in model.inputs})",),
        )


class Compiled:
    """IR that is compiled for the CPU, with one stream."""

    def __init__(self, model: Path, options: Options) -> None:
        self._ov = _runtime()
        given = {name: options[name] for name in _PROPERTIES if options.get(name) is not None}
        settings = {_PROPERTIES[name]: value for name, value in {**_DEFAULTS, **given}.items()}
        self._compile = partial(_compile, self._ov, model, {**settings, "NUM_STREAMS": 1})
        compiled = self._compile()
        self._request = compiled.create_infer_request()
        self._inputs = tuple(_input(port) for port in compiled.inputs)
        self._outputs = [_output_name(port) for port in compiled.outputs]
        only = {"batch_size": only_batch_size(self._inputs), "input_length": only_length(self._inputs)}
        self.facts: Mapping[str, object] = {
            "runtime": f"openvino {_version(self._ov)}",
            "num_streams": _plain(compiled.get_property("NUM_STREAMS")),
            **{name: _plain(compiled.get_property(value)) for name, value in _PROPERTIES.items()},
            **{name: size for name, size in only.items() if size is not None},
        }

    def prepare(self, inputs: Arrays) -> dict[str, openvino.Tensor]:
        """Return the inputs that the model takes, in its types, as tensors that share their memory."""
        given = {name: np.ascontiguousarray(array) for name, array in feed(self._inputs, inputs).items()}
        return {name: self._ov.Tensor(array, shared_memory=True) for name, array in given.items()}

    def run(self, prepared: Mapping[str, openvino.Tensor]) -> Any:
        """Make one forward call, and return the outputs as arrays by the ports of the model."""
        return self._request.infer(prepared, share_inputs=True)

    def __call__(self, inputs: Arrays) -> Outputs:
        """Return the outputs by name."""
        return dict(zip(self._outputs, self.run(self.prepare(inputs)).values()))

    def kernels(self, inputs: Arrays) -> tuple[Kernel, ...]:
        """Return the kernels of a few calls of a second, profiled instance of the model."""
        request, prepared = self._compile(PERF_COUNT=True).create_infer_request(), self.prepare(inputs)
        calls = []
        for _ in profiled_calls():
            request.infer(prepared, share_inputs=True)
            call: Counter[Node] = Counter()
            for entry in request.profiling_info:
                if entry.status == self._ov.ProfilingInfo.Status.EXECUTED:
                    kind = entry.node_type, _numbers(entry.node_type, entry.exec_type)
                    node = (*kind, False, entry.node_name, "")
                    call[node] += round(1e6 * entry.real_time.total_seconds())
            calls.append(call)
        return merge_calls(calls)


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Keep what is imported from sending usage data to Google Analytics, for which openvino and nncf ask nobody."""
    if "openvino_telemetry" in sys.modules:
        yield
        return
    modules: dict[str, Any] = sys.modules
    modules["openvino_telemetry"] = None  # its import fails, and both go on without it
    try:
        yield
    finally:
        del modules["openvino_telemetry"]


def _runtime() -> Any:
    try:
        with _without_telemetry():
            import openvino
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return openvino


def _nncf() -> Any:
    import logging

    try:
        with _without_telemetry():
            import nncf
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def _missing(error: ModuleNotFoundError) -> BenchcardError:
    return BenchcardError(f"the framework `openvino` needs {error.name}: pip install 'benchcard[openvino]'")


def _version(ov: Any) -> str:
    return str(ov.__version__).partition("-")[0]


def _reason(error: RuntimeError) -> str:
    """Return the part of an error of OpenVINO that is about the model, without places in its source code."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("Exception from", "Check '")))


def _mistakes(arguments: Options) -> Iterator[Mistake]:
    """Yield a mistake for each argument that has no effect with the `dtype`."""
    dtype = arguments.get("dtype")
    takers = {"symmetric": _WEIGHTS, "group_size": _WEIGHTS[1:], "ratio": _WEIGHTS[1:]}
    for name, dtypes in takers.items():
        if arguments.get(name) is not None and dtype not in dtypes:
            expected = f"`{name}` only with a dtype of {' or '.join(dtypes)}"
            yield Mistake(f"$.framework_args.{name}", f"it with a dtype of {dtype or 'float32'}", expected)


def _quantize(model: openvino.Model, samples: Iterable[Arrays]) -> openvino.Model:
    """Return the model with weights and activations in int8, calibrated on the samples."""
    count = sum(1 for _ in samples)
    if not count:
        expected = "a split to calibrate on for `dtype: int8`"
        raise SpecError(Mistake("$.dataset.calibration_split", "nothing", expected, "int8_weights needs none"))
    nncf = _nncf()
    # The model type is that of optimum-intel: it leaves what transformers cannot do in 8 bits in float.
    # Source: optimum-intel, OVQuantizationConfig.
    quantized: openvino.Model = nncf.quantize(
        model, nncf.Dataset(samples), subset_size=count, model_type=nncf.ModelType.TRANSFORMER
    )
    return quantized


def _compress(model: openvino.Model, arguments: Options) -> openvino.Model:
    """Return the model with weights of 8 or 4 bits, and all computation in float."""
    nncf = _nncf()
    bits = "INT8" if arguments["dtype"] == "int8_weights" else "INT4"
    settings: dict[str, Any] = {name: arguments[name] for name in ("group_size", "ratio") if name in arguments}
    if bits == "INT4" and "group_size" not in settings:
        # NNCF's default of 128 fits no narrow layer: it takes the largest group that fits.
        fallback = nncf.GroupSizeFallbackMode.ADJUST
        settings["advanced_parameters"] = nncf.AdvancedCompressionParameters(group_size_fallback_mode=fallback)
    mode = nncf.CompressWeightsMode[f"{bits}_{'SYM' if arguments.get('symmetric') else 'ASYM'}"]
    try:
        compressed: openvino.Model = nncf.compress_weights(model, mode=mode, **settings)
    except nncf.InvalidGroupSizeError as error:
        size, first = settings.get("group_size"), next(iter(re.findall(r"\n\t(.+)", str(error))), "")
        problem = f"NNCF cannot divide every weight into groups of {size}, as {first}"
        raise ArtifactError(f"{problem}: choose a `group_size` that divides the channels, or leave it out") from error
    return compressed


def _stored(model: openvino.Model) -> StoredWeights:
    """Return what a model stores; integers of 32 and 64 bits are shapes and indices."""
    from benchcard.graphs.weights import StoredWeights

    kinds: Counter[str] = Counter()
    bits = 0
    for node in model.get_ops():
        kind = node.get_element_type() if node.get_type_name() == "Constant" else None
        if kind is not None and kind.get_type_name() not in _NO_WEIGHTS:
            size = math.prod(node.get_output_shape(0))
            kinds[_TYPES.get(kind.get_type_name(), kind.get_type_name())] += size
            bits += size * kind.bitwidth
    return StoredWeights(kinds.total(), bits, kinds)


def _compile(ov: Any, model: Path, settings: Mapping[str, object], **others: object) -> openvino.CompiledModel:
    try:
        compiled: openvino.CompiledModel = ov.Core().compile_model(str(model), "CPU", {**settings, **others})
    except RuntimeError as error:
        raise ArtifactError(f"openvino {_version(ov)} cannot load {model.name}: {_reason(error)}") from error
    return compiled


def _input(port: Any) -> GraphInput:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return GraphInput(port.any_name, np.dtype(port.get_element_type().to_dtype()), shape)


def _output_name(port: Any) -> str:
    """Return the name of an output in the graph; its tensor may have others too, of inner tensors that it equals."""
    name = str(port.get_node().get_friendly_name()).removesuffix("/sink_port_0")
    return name if name in port.get_names() else str(port.any_name)


def _plain(value: Any) -> object:
    """Return the value of a property as plain data: that of a type is its name, as `f32`."""
    if isinstance(value, (bool, int, str)):
        return value
    return value.get_type_name() if hasattr(value, "get_type_name") else value.name


def _numbers(kind: str, implementation: str) -> Numbers:
    """Return the numbers that a node computes with, from its type and its implementation, as `brgemm_avx512_amx_i8`."""
    precision = implementation.rpartition("_")[2].lower()
    if kind == "FakeQuantize":
        return "conversion"
    if kind in MOVES.union(_OTHERS.split()):
        return "other"
    if precision in ("i8", "u8"):
        return "8 bits"
    return "float" if precision in _FLOATS else "other"
