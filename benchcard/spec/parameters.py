"""Every parameter of a benchmark: its name, what may stand in it, what it is when nobody says, and to whom it means
something.

This module owns the vocabulary, which is that of the cards published since 2022. What is asked is read in `spec`; what
the values come to, configuration by configuration, in `plan`. A framework's own arguments are told by the framework
(`registry.framework`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from benchcard import registry
from benchcard.errors import BenchcardError, Mistake
from benchcard.quantization.settings import APPROACHES, CALIBRATION_METHODS, DTYPES, FORMATS
from benchcard.spec.schema import (
    Boolean,
    Either,
    ListOf,
    MappingOf,
    NodeExclusion,
    Number,
    OperatorType,
    Optional,
    Text,
    ValueType,
)

CALIBRATION = MappingOf(
    {
        "method": Text(lambda: CALIBRATION_METHODS),
        "num_calibration_samples": Number(1, whole=True),
        "calibration_histogram_percentile": Number(50, 100),
        "calibration_moving_average": Boolean(),
        "calibration_moving_average_constant": Number(0, 1),
    }
)
DATASET = MappingOf(
    {
        "path": Text(),
        "name": Optional(Text()),
        "eval_split": Text(),
        "calibration_split": Optional(Text()),
        "data_keys": MappingOf({"primary": Text(), "secondary": Optional(Text())}, required=("primary",)),
        "ref_keys": ListOf(Text(), least=1),
        "revision": Optional(Text()),
    },
    required=("path", "eval_split"),
)
# The operators that onnxruntime's quantizers know, and so those that a spec means.
# Source: onnxruntime.quantization.registry, of 1.23 and 1.32.
_OPERATORS = (
    "Add ArgMax Attention AveragePool BatchNormalization Clip Concat Conv ConvTranspose CumSum EmbedLayerNormalization "
    "Flatten Gather GatherElements Gemm GlobalAveragePool InstanceNormalization LSTM LayerNormalization LeakyRelu "
    "MatMul MaxPool Mul Pad Relu Reshape Resize Sigmoid Slice Softmax Split Squeeze TopK Transpose Unsqueeze Where"
)
DTYPE = Optional(Text(lambda: DTYPES))


def _arguments() -> Iterator[Mapping[str, ValueType]]:
    """The arguments of each framework that can be loaded: one that cannot is no matter of those who do not use it."""
    for name in registry.frameworks():
        with suppress(BenchcardError):
            yield registry.framework(name).arguments


@dataclass(frozen=True)
class FrameworkArguments:
    """The arguments of any framework; which framework they belong to is found out in the plan."""

    words: str = "a mapping of a framework's arguments"

    def mistakes(self, value: Any, place: str) -> Iterator[Mistake]:
        """Arguments that no framework knows, or of the wrong kind."""
        known: dict[str, ValueType] = {}
        for arguments in _arguments():
            known.update(arguments)
        yield from MappingOf(known).mistakes(value, place)


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        kind: What may stand in it.
        default: Its value when nobody says; None where the value then follows from others or from a library.
        scope: Where it means something: "any" configuration, a "quantized" one, or a "static" one. Elsewhere it is
            None.
        setting: True for what says how to measure, and is shown in the card's sentences and not among its fixed
            parameters.
    """

    kind: ValueType
    default: Any = None
    scope: str = "any"
    setting: bool = False


PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {
        "dataset": Parameter(DATASET),
        "name_or_path": Parameter(Text()),
        "from_transformers": Parameter(Boolean(), True),
        "framework": Parameter(Text(lambda: registry.frameworks()), "onnxruntime"),
        "quantization_approach": Parameter(Text(lambda: APPROACHES), None, "quantized"),
        "operators_to_quantize": Parameter(
            Optional(ListOf(OperatorType(tuple(_OPERATORS.split())), least=1)), None, "quantized"
        ),
        "node_exclusion": Parameter(NodeExclusion(), [], "quantized"),
        "per_channel": Parameter(Boolean(), False, "quantized"),
        "framework_args": Parameter(FrameworkArguments(), {}),
        "reduce_range": Parameter(Boolean(), False, "quantized"),
        "weights_dtype": Parameter(DTYPE, None, "quantized"),
        "activations_dtype": Parameter(DTYPE, None, "static"),
        "quant_format": Parameter(Optional(Text(lambda: FORMATS)), None, "static"),
        "weights_symmetric": Parameter(Optional(Boolean()), None, "quantized"),
        "activations_symmetric": Parameter(Optional(Boolean()), None, "static"),
        "matmul_const_b_only": Parameter(Optional(Boolean()), None, "quantized"),
        "calibration": Parameter(CALIBRATION, {}, "static"),
        "apply_quantization": Parameter(Boolean()),
        "task_args": Parameter(MappingOf(open=True), {}),
        "trust_remote_code": Parameter(Boolean(), False),
        "max_eval_samples": Parameter(Optional(Number(1, whole=True)), None, setting=True),
        "metrics": Parameter(ListOf(Text(), least=1), None, setting=True),
        "higher_is_better": Parameter(MappingOf(open=True, each=Boolean()), {}, setting=True),
        "batch_sizes": Parameter(ListOf(Number(1, 65_536, whole=True), least=1), [1], setting=True),
        "input_lengths": Parameter(ListOf(Number(1, 16_777_216, whole=True), least=1), None, setting=True),
        "duration": Parameter(Number(0, 86_400), 15, setting=True),
        "precision": Parameter(Optional(Number(0.0001, 1)), None, setting=True),
        "warmup_runs": Parameter(Number(0, 1_000_000, whole=True), 10, setting=True),
        "explain": Parameter(Boolean(), True, setting=True),
        "seed": Parameter(Number(0, 2**32 - 1, whole=True), 0, setting=True),
        "backend": Parameter(Text(lambda: registry.backends()), "local", setting=True),
        "backend_args": Parameter(
            MappingOf({"supported_instructions": Optional(Either((Text(), ListOf(Text()))))}, open=True),
            {},
            setting=True,
        ),
    }
)

# Names that older cards used, and the word of `Benchmark(...)`.
ALIASES: Mapping[str, str] = MappingProxyType({"model": "name_or_path", "model_name_or_path": "name_or_path"})

# How much of the first metric `node_exclusion: auto` may lose, None for a point, and how many quantized models it may
# evaluate.
AUTO_DEFAULTS: Mapping[str, Any] = MappingProxyType({"max_drop": None, "max_trials": 16})

CALIBRATION_DEFAULTS: Mapping[str, Any] = MappingProxyType({"method": "minmax", "num_calibration_samples": 100})


def split_name(name: str) -> tuple[str, str | None]:
    """The parameter and, for `calibration.method`, the field in it that `name` stands for."""
    parameter, _, part = name.partition(".")
    return parameter, part or None


def type_of(name: str) -> ValueType | None:
    """What may stand in a parameter or in a field of one, `calibration.method`; None for an unknown name."""
    parameter, part = split_name(name)
    known = PARAMETERS.get(parameter)
    if known is None or part is None:
        return known.kind if known else None
    if isinstance(known.kind, FrameworkArguments):
        kinds = [arguments.get(part) for arguments in _arguments()]
        return next((kind for kind in kinds if kind is not None), None)
    if isinstance(known.kind, MappingOf):
        return known.kind.fields.get(
            part, Either((Text(), Number(), Boolean(), ListOf(Text()))) if known.kind.open else None
        )
    return None


def names() -> tuple[str, ...]:
    """Every name that may stand in `grid` or `fixed`, with the fields of mappings as `calibration.method`."""
    every = list(PARAMETERS)
    for name, parameter in PARAMETERS.items():
        if isinstance(parameter.kind, MappingOf):
            every += [f"{name}.{part}" for part in parameter.kind.fields]
    for arguments in _arguments():
        every += [f"framework_args.{part}" for part in arguments]
    return tuple(dict.fromkeys(every))
