"""The parameters of a quantization: names, choices and ONNX Runtime's defaults. Imports no onnx or onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

APPROACHES = ("dynamic", "static", "weight_only")
FORMATS = ("QDQ", "QOperator")
DTYPES = ("int8", "uint8")
# Methods of weight-only quantization. Those of onnxruntime that calibrate are not among them.
ALGORITHMS = ("rtn", "hqq", "k_quant")
BITS = (4, 8)
BLOCK_SIZES = (16, 32, 64, 128, 256)
CALIBRATION_METHODS = ("minmax", "percentile", "entropy", "distribution")


@dataclass(frozen=True)
class Quantization:
    """How to quantize one graph. None stands for ONNX Runtime's default.

    Attributes:
        approach: "dynamic" (ranges of activations are computed in every forward pass), "static" (they are given), or
            "weight_only" (activations stay in floating point).
        operators_to_quantize: Operator types, empty for none; None for all that the quantizer knows for the approach.
        nodes_to_exclude: Names of nodes that stay in float32.
        per_channel: One scale per output channel of a weight, where the operator allows it, instead of one per weight;
            None is no.
        reduce_range: Weights in 7 bits, so that sums of products cannot saturate on CPUs without VNNI; None is no.
        weights_dtype: "int8" or "uint8"; None is int8.
        activations_dtype: "int8" or "uint8"; None is int8. Dynamic activations are always uint8.
        quant_format: "QDQ" or "QOperator", for static; None is QDQ.
        weights_symmetric: Zero point in the middle; None is yes for int8, else no.
        activations_symmetric: Zero point in the middle; None is no.
        matmul_const_b_only: Only `MatMul` whose second input is a weight; None is yes for dynamic, no for static.
        bits: 4 or 8, for weight-only; None is 4.
        block_size: Weights that share a scale, for weight-only; None is 32.
        algorithm: "rtn" (round to nearest), "hqq" or "k_quant", for weight-only; None is rtn.
        accuracy_level: What products may be computed in, for weight-only: 1 is float32, 2 float16, 3 bfloat16, 4 int8,
            and 0 leaves it to the runtime; None is 0.
    """

    approach: str
    operators_to_quantize: tuple[str, ...] | None = None
    nodes_to_exclude: tuple[str, ...] = ()
    per_channel: bool | None = False
    reduce_range: bool | None = False
    weights_dtype: str | None = None
    activations_dtype: str | None = None
    quant_format: str | None = None
    weights_symmetric: bool | None = None
    activations_symmetric: bool | None = None
    matmul_const_b_only: bool | None = None
    bits: int | None = None
    block_size: int | None = None
    algorithm: str | None = None
    accuracy_level: int | None = None

    @property
    def resolved(self) -> Quantization:
        """The same quantization with ONNX Runtime's values in the place of None, and of what the approach ignores.

        Source for symmetry: `BaseQuantizer.is_weight_symmetric`; for the block size: the conversion script of
        Transformers.js and the model builder of onnxruntime-genai.
        """
        if self.approach == "weight_only":
            algorithm = self.algorithm or "rtn"
            return replace(
                self,
                bits=self.bits or 4,
                block_size=self.block_size or 32,
                algorithm=algorithm,
                accuracy_level=0 if algorithm == "hqq" else self.accuracy_level or 0,
                weights_symmetric=bool(self.weights_symmetric and algorithm == "rtn"),
            )
        is_dynamic = self.approach == "dynamic"
        symmetric, const_b_only = self.weights_symmetric, self.matmul_const_b_only
        return replace(
            self,
            weights_dtype=self.weights_dtype or "int8",
            activations_dtype="uint8" if is_dynamic else self.activations_dtype or "int8",
            quant_format=None if is_dynamic else self.layout,
            weights_symmetric=self.weights_dtype != "uint8" if symmetric is None else symmetric,
            activations_symmetric=bool(self.activations_symmetric and not is_dynamic),
            matmul_const_b_only=is_dynamic if const_b_only is None else const_b_only,
        )

    @property
    def layout(self) -> str:
        """How the quantized graph is written: "dynamic", "weight_only", "QDQ" or "QOperator"."""
        return self.quant_format or "QDQ" if self.approach == "static" else self.approach

    @property
    def form(self) -> str:
        """What an operator needs to be quantized, in words."""
        return {"dynamic": "dynamic kernel", "weight_only": "weight-only form"}.get(self.layout, f"{self.layout} form")

    @property
    def ignored(self) -> Mapping[str, str]:
        """The parameters that this quantization ignores although it has them, and why."""
        if self.approach == "dynamic":
            return STATIC_ONLY
        return _FIXED_BY.get(self.algorithm or "", {}) if self.approach == "weight_only" else {}


# The names of the parameters that a row of a grid has, under the same names.
PARAMETERS = tuple(field.name for field in fields(Quantization) if field.name not in ("approach", "nodes_to_exclude"))

# The parameters that dynamic quantization ignores, and why.
# Source: `quantize_dynamic` of onnxruntime.quantization, and the operator `DynamicQuantizeLinear`.
STATIC_ONLY: Mapping[str, str] = MappingProxyType(
    {
        "activations_dtype": "dynamic activations are always uint8",
        "activations_symmetric": "the range of dynamic activations is computed in every call, zero not in its middle",
        "quant_format": "it applies to static quantization only",
    }
)

# The parameters that an algorithm of weight-only quantization ignores, and why.
# Source: `HQQWeightOnlyQuantizer` and `quant_tensor_k_quant_cpu` of onnxruntime.quantization.
_ZERO_POINTS = "always has zero points"
_FIXED_BY: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "hqq": {
            "weights_symmetric": f"`hqq` {_ZERO_POINTS}",
            "accuracy_level": "ONNX Runtime computes in floating point with the zero points of `hqq`",
        },
        "k_quant": {"weights_symmetric": f"`k_quant` {_ZERO_POINTS}"},
    }
)
