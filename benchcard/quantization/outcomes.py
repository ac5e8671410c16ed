"""What quantization and its analysis return. The values need no library, so results are read without onnx."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exclusion:
    """What one exclusion matches in a graph.

    Attributes:
        instances: How many times it was found: two for two layer norms, however many nodes these have.
        would_be_quantized: Those of its nodes that would be quantized without any exclusion.
        remark: Why it makes no difference; empty where it does.
    """

    pattern: str
    instances: int
    nodes: tuple[str, ...]
    would_be_quantized: tuple[str, ...]
    remark: str = ""


@dataclass(frozen=True)
class OperatorCount:
    """How many nodes of one operator type were asked for, excluded by name, and quantized."""

    operator: str
    eligible: int
    excluded: int
    quantized: int


@dataclass(frozen=True)
class QuantizationReport:
    """The outcome of quantizing one graph.

    Attributes:
        digest: SHA-256 of the written model's content (see `graphs.files.model_digest`).
        nodes_eligible: Nodes whose operator was asked for and has a kernel for the approach, excluded ones among them.
        weights_quantized: Weights that are integers of at most 8 bits now; biases, which become int32, do not count.
        weights_per_channel: Those of them with one scale per channel.
        is_float_model: True where nothing was quantized; the written model then is the float model itself.
    """

    digest: str
    size_bytes: int
    nodes_quantized: int
    nodes_eligible: int
    operators: tuple[OperatorCount, ...]
    quantize_nodes: int
    dequantize_nodes: int
    dynamic_quantize_nodes: int
    weights_quantized: int
    weights_per_channel: int
    is_float_model: bool
    notes: tuple[str, ...]


# Below this signal-to-noise ratio of its outputs, a classifier's decisions begin to change. Source: docs/reasons.md.
FAR_DB = 20.0


@dataclass(frozen=True)
class Loss:
    """How much numbers differ from those in float32; None where a quantized number is not finite.

    `snr_db` is the power of the float numbers over that of the differences, in decibels; None where there are none.
    """

    max_abs_difference: float | None
    snr_db: float | None
    is_finite: bool

    @property
    def is_far(self) -> bool:
        """Whether the numbers are far from those in float32."""
        return not self.is_finite or (self.snr_db is not None and self.snr_db < FAR_DB)


@dataclass(frozen=True)
class LayerEffect:
    """What the outputs lose when one layer alone is quantized; `node` is the float node, which can be excluded."""

    node: str
    operator: str
    effect: Loss


@dataclass(frozen=True)
class LayerLoss(LayerEffect):
    """The effect of one layer, and the loss of its own output alone and together, as the module describes them."""

    alone: Loss
    together: Loss


@dataclass(frozen=True)
class Losses:
    """What a quantized model lost against its float model.

    Attributes:
        outputs: The loss of all floating-point outputs, over all batches, with the model run as it is deployed.
        layers: The layers that cost most, by their effect, the worst first.
        layers_compared: Number of quantized layers that were searched.
        trials: Number of sets of layers that were tried, each on `searched_batches`.
        is_complete: False where the trials ended while another layer was expected to cost as much.
    """

    outputs: Loss
    batches: int
    layers: tuple[LayerLoss, ...]
    layers_compared: int
    trials: int
    searched_batches: int
    is_complete: bool
