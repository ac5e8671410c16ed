"""The parameters of a quantization: names, choices and ONNX Runtime's defaults. Imports no onnx or onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

APPROACHES = ("dynamic", "static")
FORMATS = ("QDQ", "QOperator")
DTYPES = ("int8", "uint8")
CALIBRATION_METHODS = ("minmax", "percentile", "entropy", "distribution")


@dataclass(frozen=True)
class Quantization:
    """How to quantize one graph. None stands for ONNX Runtime's default.

    Attributes:
        approach: "dynamic" (ranges of activations are computed in every forward pass) or "static" (they are given).
        operators_to_quantize: Operator types, empty for none; None for all that the quantizer knows for the approach.
        nodes_to_exclude: Names of nodes that stay in float32.
        per_channel: One scale per output channel of a weight, where the operator allows it, instead of one per weight;
            None is no.
        reduce_range: Weights in 7 bits, so that sums of products cannot saturate on CPUs without VNNI; None is no.
        weights_dtype: "int8" or "uint8"; None is int8.
        activations_dtype: "int8" or "uint8"; None is int8. Dynamic activations are always uint8.
        quant_format: "QDQ" or "QOperator", for static; None is QDQ.
        weights_symmetric: Zero point in the middle; None follows the dtype: yes for int8, no for uint8.
        activations_symmetric: Zero point in the middle; None is no.
        matmul_const_b_only: Only `MatMul` whose second input is a weight; None is yes for dynamic, no for static.
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

    @property
    def resolved(self) -> Quantization:
        """The same quantization with ONNX Runtime's values in the place of None, and of what dynamic ignores.

        Source for symmetry: `BaseQuantizer.is_weight_symmetric`.
        """
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
        """How the quantized graph is written: "dynamic", "QDQ" or "QOperator"."""
        return "dynamic" if self.approach == "dynamic" else self.quant_format or "QDQ"


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
