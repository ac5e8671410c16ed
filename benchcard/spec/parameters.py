"""The parameters of a benchmark: their names, types, defaults, and the configurations they apply to.

This module owns the vocabulary, which is that of the cards published since 2022. Reading a spec is left to `spec`, the
values of each configuration to `plan`, and the arguments of a framework to the framework (`registry.framework`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from benchcard import registry
from benchcard.errors import BenchcardError, Mistake
from benchcard.quantization.settings import (
    ALGORITHMS,
    APPROACHES,
    BITS,
    BLOCK_SIZES,
    CALIBRATION_METHODS,
    DTYPES,
    FORMATS,
)
from benchcard.spec.schema import (
    Boolean,
    Duration,
    Either,
    HubId,
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
        "ref_keys": ListOf(Text()),
        "revision": Optional(Text()),
    },
    required=("path", "eval_split"),
)
# The operators that onnxruntime's quantizers know. Source: onnxruntime.quantization.registry, of 1.23 and 1.32.
_OPERATORS = (
    "Add ArgMax Attention AveragePool BatchNormalization Clip Concat Conv ConvTranspose CumSum EmbedLayerNormalization "
    "Flatten Gather GatherElements Gemm GlobalAveragePool InstanceNormalization LSTM LayerNormalization LeakyRelu "
    "MatMul MaxPool Mul Pad Relu Reshape Resize Sigmoid Slice Softmax Split Squeeze TopK Transpose Unsqueeze Where"
)
DTYPE = Optional(Text(lambda: DTYPES))
# The configurations that a parameter may apply to, and how they are quantized; None for not at all.
SCOPES: Mapping[str, tuple[str | None, ...]] = MappingProxyType(
    {
        "any": (None, *APPROACHES),
        "quantized": APPROACHES,
        "8 bits": ("dynamic", "static"),
        "static": ("static",),
        "weight_only": ("weight_only",),
        "float": (None, "weight_only"),
    }
)


@dataclass(frozen=True)
class FrameworkArguments:
    """Arguments of any framework; the plan decides which framework takes them. If `open`, unknown ones are accepted."""

    open: bool = False
    expected: str = "a mapping of a framework's arguments"

    @property
    def fields(self) -> Mapping[str, ValueType]:
        """The arguments of all frameworks that can be loaded: a broken one must not affect specs without it."""
        fields: dict[str, ValueType] = {}
        for name in registry.frameworks():
            with suppress(BenchcardError):
                fields |= registry.framework(name).arguments
        return fields

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield a mistake for each argument that no framework knows, and for each wrong value."""
        yield from MappingOf(self.fields, open=self.open).mistakes(value, place)


@dataclass(frozen=True)
class Parameter:
    """One parameter and the type of its value.

    Attributes:
        default: Its value where the spec does not set it; None where it then follows from others or from a library.
        scope: The configurations that it applies to, a key of `SCOPES`; in others it is None.
        setting: Whether it sets how to measure; the card lists settings apart from the fixed parameters.
    """

    type: ValueType
    default: object = None
    scope: Literal["any", "quantized", "8 bits", "static", "weight_only", "float"] = "any"
    setting: bool = False


PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {
        "dataset": Parameter(DATASET),
        "name_or_path": Parameter(Text()),
        "model_name": Parameter(Text()),
        "base_model": Parameter(HubId()),
        "from_transformers": Parameter(Boolean(), True),
        "framework": Parameter(Text(lambda: registry.frameworks()), "onnxruntime"),
        "quantization_approach": Parameter(Text(lambda: APPROACHES), None, "quantized"),
        "operators_to_quantize": Parameter(
            Optional(ListOf(OperatorType(tuple(_OPERATORS.split())))), None, "quantized"
        ),
        "node_exclusion": Parameter(NodeExclusion(), [], "quantized"),
        "per_channel": Parameter(Boolean(), False, "8 bits"),
        "framework_args": Parameter(FrameworkArguments(), {}),
        "reduce_range": Parameter(Boolean(), False, "8 bits"),
        "weights_dtype": Parameter(DTYPE, None, "8 bits"),
        "activations_dtype": Parameter(DTYPE, None, "static"),
        "quant_format": Parameter(Optional(Text(lambda: FORMATS)), None, "static"),
        "weights_symmetric": Parameter(Optional(Boolean()), None, "quantized"),
        "activations_symmetric": Parameter(Optional(Boolean()), None, "static"),
        "matmul_const_b_only": Parameter(Optional(Boolean()), None, "8 bits"),
        "bits": Parameter(Number(among=BITS), 4, "weight_only"),
        "block_size": Parameter(Number(among=BLOCK_SIZES), 32, "weight_only"),
        "algorithm": Parameter(Text(lambda: ALGORITHMS), "rtn", "weight_only"),
        "accuracy_level": Parameter(Optional(Number(among=(0, 1, 2, 3, 4))), None, "weight_only"),
        "dtype": Parameter(Optional(Text(lambda: ("float32", "float16"))), None, "float"),
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
        "price_per_core_hour": Parameter(Optional(Number(0)), None, setting=True),
        "price_per_hour": Parameter(Optional(Number(0)), None, setting=True),
        "warmup_runs": Parameter(Number(0, 1_000_000, whole=True), 10, setting=True),
        "baseline": Parameter(MappingOf(open=True), {}, setting=True),
        "explain": Parameter(Boolean(), True, setting=True),
        "budget": Parameter(Optional(Duration()), None, setting=True),
        "max_rows": Parameter(Optional(Number(1, whole=True)), None, setting=True),
        "seed": Parameter(Number(0, 2**32 - 1, whole=True), 0, setting=True),
        "backend": Parameter(Text(lambda: registry.backends()), "local", setting=True),
        "backend_args": Parameter(
            MappingOf({"supported_instructions": Optional(Either((Text(), ListOf(Text()))))}, open=True),
            {},
            setting=True,
        ),
    }
)

# Parameters that change nothing that is measured: names that are only shown on the card, and prices of the machine.
CARD_NAMES = ("model_name", "base_model")
PRICES = ("price_per_core_hour", "price_per_hour")

# The parameter that says on which machine a backend runs; in a grid, each of its values is a machine.
BACKEND_ARGUMENTS = "backend_args"

# The parameter that chooses among the graphs of the model's folder.
FILE_NAME = "framework_args.file_name"

# The names of older cards, and the keyword of `Benchmark(...)`.
ALIASES: Mapping[str, str] = MappingProxyType({"model": "name_or_path", "model_name_or_path": "name_or_path"})

# The limits of the search of `node_exclusion: auto`: the largest loss of the figure that decides (None for 0.01, 1 for
# a metric in %, or 0.05 nats) and the largest number of quantized models to evaluate.
AUTO_DEFAULTS: Mapping[str, int | None] = MappingProxyType({"max_drop": None, "max_trials": 16})

CALIBRATION_DEFAULTS: Mapping[str, str | int] = MappingProxyType({"method": "minmax", "num_calibration_samples": 100})


def split_name(name: str) -> tuple[str, str | None]:
    """Return the parameter that `name` stands for and, for `calibration.method`, the field in it."""
    parameter, _, part = name.partition(".")
    return parameter, part or None


def type_of(name: str) -> ValueType | None:
    """Return the type of a parameter or of a field of one, as `calibration.method`; None for an unknown name."""
    parameter, part = split_name(name)
    value_type = PARAMETERS[parameter].type if parameter in PARAMETERS else None
    if part is None:
        return value_type
    if isinstance(value_type, (MappingOf, FrameworkArguments)):
        other = Either((Text(), Number(), Boolean(), ListOf(Text()))) if value_type.open else None
        return value_type.fields.get(part, other)
    return None


def parameter_names() -> tuple[str, ...]:
    """Return every name that `grid` or `fixed` may hold, with the fields of mappings as `calibration.method`."""
    names = list(PARAMETERS)
    for name, parameter in PARAMETERS.items():
        if isinstance(parameter.type, (MappingOf, FrameworkArguments)):
            names += [f"{name}.{part}" for part in parameter.type.fields]
    return tuple(names)
