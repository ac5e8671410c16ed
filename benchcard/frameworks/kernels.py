"""The kernels that a runtime runs for a model: their names, number types and shares of the time of a call.

Owns `Kernel`, how many calls are profiled, and reading ONNX Runtime's profile. A quantized graph alone does not show
whether a node computes in 8 bits: that depends on whether the runtime fuses it with the conversions around it.

Source: https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html
"""

from __future__ import annotations

import re
import statistics
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

# Optimization levels at which ONNX Runtime does not fuse a quantized node with the conversions around it, and computes
# in float32 between them. It fuses them at higher levels. Within either set of levels, outputs differ by rounding only.
# Source: https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html; the list of transformers
# by level in onnxruntime, core/optimizer/graph_transformer_utils.cc.
UNFUSED_LEVELS = (0, 1)
# Operators that ONNX Runtime can fuse with the conversions around them into a kernel that computes in 8 bits. Others
# stay in float32, are removed, or only move values.
# Source: onnxruntime, core/optimizer/qdq_transformer/selectors_actions/qdq_selector_action_transformer.cc; each of them
# tested alone in onnxruntime 1.32.
_FUSIBLE = "Add AveragePool Concat Conv Gemm GlobalAveragePool LeakyRelu MatMul MaxPool Mul Sigmoid Softmax"
FUSIBLE = frozenset(_FUSIBLE.split())
# The smallest and largest number of profiled calls. The first one is left out, because it includes one-time work. Two
# others are needed, so that the shorter one counts where the other was interrupted. With four, up to two may be
# interrupted at the same node. No further call begins after this many seconds.
_MIN_PROFILED_CALLS, _MAX_PROFILED_CALLS = 3, 5
_PROFILED_S = 0.5
Numbers = Literal["8 bits", "conversion", "float", "other"]
_CONVERSIONS = frozenset(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"))
# They move values or convert their type, and compute nothing.
_MOVES = (
    "Cast Compress Concat DepthToSpace Expand Flatten Gather GatherBlockQuantized GatherElements GatherND Identity "
    "MemcpyFromHost MemcpyToHost Pad ReorderInput ReorderOutput Reshape ScatterElements ScatterND Shape Slice "
    "SpaceToDepth Split Squeeze Tile Transpose Unsqueeze Where"
)
MOVES = frozenset(_MOVES.split())
# Kernels with weights of few bits, which compute in float.
_WEIGHTS_ONLY = frozenset(("MatMulNBits", "MatMulBnb4"))
# Their time includes the kernels inside them.
_CONTROL = frozenset(("If", "Loop", "Scan"))
_FLOATS = frozenset(("float", "float16", "bfloat16", "double"))
# Kernels whose names differ from the operators that they compute.
_KERNEL_OPERATORS = (
    (re.compile(r"^QLinear(?P<operator>.+)$"), None),
    (re.compile(r"^QGemm$"), ("Gemm", "MatMul")),
    (re.compile(r"^(MatMulInteger|DynamicQuantizeMatMul)"), ("MatMul", "Gemm")),
    (re.compile(r"^ConvInteger"), ("Conv",)),
    (re.compile(r"^(DynamicQuantize|Q)(?P<operator>Attention|LSTM|EmbedLayerNormalization)$"), None),
    (re.compile(r"^(NhwcFusedConv|FusedConv)$"), ("Conv",)),
    (re.compile(r"^NhwcMaxPool$"), ("MaxPool",)),
    (re.compile(r"^(FusedMatMul|FusedGemm)$"), ("MatMul", "Gemm")),
)


@dataclass(frozen=True)
class Kernel:
    """All kernels of one name in a model.

    Attributes:
        name: An operator of ONNX or of the runtime, as `MatMulIntegerToFloat`.
        numbers: The numbers that it computes with: "8 bits", "float", "other" (integers, texts, or it only moves
            values), or "conversion" between float and 8 bits.
        nodes: Number of nodes that a call runs.
        time_share: Share of the time of all kernels of a call, from 0 to 1.
        on_cpu: Whether it runs on the CPU, of a model that runs on a GPU.
    """

    name: str
    numbers: str
    nodes: int
    time_share: float
    on_cpu: bool = False


class _Arguments(msgspec.Struct, frozen=True):
    """What is read of the arguments of an event; only those of kernels have an operator."""

    op_name: str = ""
    node_index: str = ""
    provider: str = ""
    input_type_shape: tuple[dict[str, msgspec.Raw], ...] = ()


class _Event(msgspec.Struct, frozen=True):
    """An event of a profile of ONNX Runtime: when it began and how long it took, in microseconds."""

    name: str
    ts: int
    dur: int
    cat: str = ""
    args: _Arguments = _Arguments()


Node: TypeAlias = tuple[str, Numbers, bool, str, str]
"""A node of a graph: the name and numbers of its kernel, whether it falls back to the CPU, its own name, its index."""


def read_kernels(profile: Path, *, gpu: bool = False) -> tuple[Kernel, ...]:
    """Return the kernels of a profile of ONNX Runtime; nothing where it has no call. `gpu`: it ran on a GPU."""
    try:
        calls = _calls(msgspec.json.decode(profile.read_bytes(), type=list[_Event]), gpu)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        # The disk was full, a name has a quotation mark (which the runtime does not escape), or the format changed.
        return ()
    return merge_calls(calls)


def profiled_calls() -> Iterator[int]:
    """Yield the number of each call to profile, while there is time for it."""
    started = time.perf_counter()
    for number in range(_MAX_PROFILED_CALLS):
        if number >= _MIN_PROFILED_CALLS and time.perf_counter() - started > _PROFILED_S:
            return
        yield number


def merge_calls(calls: Sequence[Mapping[Node, int]]) -> tuple[Kernel, ...]:
    """Return the kernels of calls, each the microseconds of its nodes; those with the largest share first.

    The first call includes one-time work and is left out where there is another one. For each node the low median of
    the other calls counts. A mean would include interruptions of a call by the rest of the machine, which can take
    longer than the call.
    """
    by_node: dict[Node, list[int]] = {}
    for call in calls[1:] or calls:
        for node, duration_us in call.items():
            by_node.setdefault(node, []).append(duration_us)
    by_kernel: dict[tuple[str, Numbers, bool], list[int]] = {}
    for (name, numbers, on_cpu, *_), node_us in by_node.items():
        by_kernel.setdefault((name, numbers, on_cpu), []).append(statistics.median_low(node_us))
    total_us = sum(map(sum, by_kernel.values())) or 1
    kernels = (
        Kernel(name, numbers, len(nodes_us), sum(nodes_us) / total_us, on_cpu)
        for (name, numbers, on_cpu), nodes_us in by_kernel.items()
    )
    return tuple(sorted(kernels, key=lambda kernel: (-kernel.time_share, kernel.name, kernel.numbers)))


def operators(kernel: str) -> tuple[str, ...]:
    """Return the ONNX operators that a kernel computes; its own name where nothing else is known."""
    for pattern, names in _KERNEL_OPERATORS:
        if match := pattern.match(kernel):
            return names or (match["operator"],)
    return (kernel,)


def partly_fused(kernels: Iterable[Kernel], quantized: Mapping[str, int]) -> Iterator[tuple[str, int, int]]:
    """Yield the operators of which some quantized nodes compute in float32 although they could be fused.

    Each comes as the operators in back-ticks, the number of nodes that compute in 8 bits, and the number of quantized
    nodes, which `quantized` has by operator.
    """
    # Some kernels compute either of these, and their names do not show which.
    both = ("Gemm", "MatMul") if quantized.keys() >= {"Gemm", "MatMul"} else ()
    groups = [(operator,) for operator in sorted(FUSIBLE.intersection(quantized).difference(both))]
    for group in filter(None, (*groups, both)):
        group_kernels = [kernel for kernel in kernels if set(group).intersection(operators(kernel.name))]
        in_8_bits = sum(kernel.nodes for kernel in group_kernels if kernel.numbers == "8 bits")
        count = sum(quantized[operator] for operator in group)
        if in_8_bits < count and any(kernel.numbers == "float" for kernel in group_kernels):
            yield " or ".join(f"`{operator}`" for operator in group), in_8_bits, count


def _calls(events: Sequence[_Event], gpu: bool) -> list[Counter[Node]]:
    """Return the microseconds of each node in each call of a profile; those of a node in a loop are added."""
    spans = sorted((event.ts, event.ts + event.dur) for event in events if event.name == "model_run")
    starts = [start for start, _ in spans]
    calls: list[Counter[Node]] = [Counter() for _ in spans]
    for event in events:
        kernel = event.args.op_name
        if kernel and event.cat == "Node" and event.name.endswith("_kernel_time") and kernel not in _CONTROL:
            call = bisect_right(starts, event.ts) - 1
            if call >= 0 and event.ts <= spans[call][1]:
                types = {kind for shape in event.args.input_type_shape for kind in shape}
                on_cpu = gpu and event.args.provider == "CPUExecutionProvider"
                node = (kernel, _numbers(kernel, types), on_cpu, event.name, event.args.node_index)
                calls[call][node] += event.dur
    return calls


def _numbers(kernel: str, types: Set[str]) -> Numbers:
    if kernel in _CONVERSIONS:
        return "conversion"
    if kernel in MOVES:
        return "other"
    if types & {"int8", "uint8"} and kernel not in _WEIGHTS_ONLY:
        return "8 bits"
    return "float" if types & _FLOATS else "other"
