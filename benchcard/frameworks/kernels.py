"""What ONNX Runtime really runs: the kernels that its optimizations leave of a graph, in which numbers they compute,
and where the time of a call goes.

This module owns what a `Kernel` is, and the reading of the runtime's profile. A quantized graph says little of it:
whether a node computes in 8 bits is decided when the runtime joins it with the conversions around it, or does not.

Source: https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html
"""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# Levels at which ONNX Runtime leaves the conversions around a quantized node as they are, and computes in float32
# between them. Above these it joins them. Within either kind, outputs differ by rounding alone.
# Source: https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html; the list of transformers
# by level in onnxruntime, core/optimizer/graph_transformer_utils.cc.
UNJOINED = (0, 1)
# Operators that ONNX Runtime joins with the conversions around them to one that computes in 8 bits. Others stay in
# float32, or are removed, or only move what they are given.
# Source: onnxruntime, core/optimizer/qdq_transformer/selectors_actions/qdq_selector_action_transformer.cc; each of them
# tried alone in onnxruntime 1.32.
JOINABLE = frozenset(
    (
        "Add",
        "AveragePool",
        "Concat",
        "Conv",
        "Gemm",
        "GlobalAveragePool",
        "LeakyRelu",
        "MatMul",
        "MaxPool",
        "Mul",
        "Sigmoid",
        "Softmax",
    )
)
Numbers = Literal["8 bits", "conversion", "float", "other"]
# A kernel's name and numbers; a node's name and number.
_Kind = tuple[str, Numbers]
_Node = tuple[str, str]
_CONVERSIONS = frozenset(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"))
# They carry numbers from one place or type to another, whatever these are.
_MOVES = frozenset(
    (
        "Cast",
        "Compress",
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherBlockQuantized",
        "GatherElements",
        "GatherND",
        "Identity",
        "MemcpyFromHost",
        "MemcpyToHost",
        "Pad",
        "ReorderInput",
        "ReorderOutput",
        "Reshape",
        "ScatterElements",
        "ScatterND",
        "Shape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    )
)
# Weights of few bits, made floats again while they are multiplied.
_WEIGHTS_ONLY = frozenset(("MatMulNBits", "MatMulBnb4"))
# Their time is that of the kernels inside them.
_CONTROL = frozenset(("If", "Loop", "Scan"))
_FLOATS = frozenset(("float", "float16", "bfloat16", "double"))
# Kernels for several operators in one, or for one that is called differently: what they are kernels of.
_OF = (
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
    """All kernels of one name in a model, as the runtime runs it.

    Attributes:
        name: Of the kernel: an operator of ONNX or of the runtime, as `MatMulIntegerToFloat`.
        numbers: In what it computes: "8 bits", "float", "other" (integers, texts; or it only moves what it is given);
            or "conversion", from float to 8 bits or back.
        nodes: How many there are, of those that a call runs.
        time_share: Its share of the time of all kernels of a call, from 0 to 1.
    """

    name: str
    numbers: Numbers
    nodes: int
    time_share: float


def kernels(profile: Path) -> tuple[Kernel, ...]:
    """What a profile shows, the kernel that takes longest first; nothing where it shows no call.

    The first call pays for what is done once, and is left out where there is another one. Of the others each node's
    middle time counts, of two the shorter: whatever else the machine does stops a call here and there for longer than
    all of it takes, and a mean would give that time to the kernel that happened to run.

    Args:
        profile: The file that `end_profiling` of a session gave.
    """
    try:
        events = json.loads(profile.read_bytes())
        calls = _calls(events)
    except (OSError, ValueError, KeyError):
        # A disk that is full; a name with a quotation mark, which is written as it is; notes in another form.
        return ()
    nodes: Counter[_Kind] = Counter()
    took: Counter[_Kind] = Counter()
    for (kind, _), each in _by_node(calls[1:] or calls).items():
        nodes[kind] += 1
        took[kind] += statistics.median_low(each)
    total = sum(took.values()) or 1
    found = (Kernel(*kind, nodes[kind], took[kind] / total) for kind in took)
    return tuple(sorted(found, key=lambda kernel: (-kernel.time_share, kernel.name, kernel.numbers)))


def operators(kernel: str) -> tuple[str, ...]:
    """The operators of ONNX that a kernel computes, as far as is known: its own name, or what it was made of."""
    for pattern, named in _OF:
        if found := pattern.match(kernel):
            return named or (found["operator"],)
    return (kernel,)


def partly_joined(run: Iterable[Kernel], quantized: Mapping[str, int]) -> Iterator[tuple[str, int, int]]:
    """Operators that could have been joined and of which a node computes in float32, in back-ticks; how many nodes of
    theirs compute in 8 bits; and how many are quantized.

    Args:
        run: The kernels that a call runs.
        quantized: The number of quantized nodes by operator.
    """
    # Some kernels are those of either, and do not tell of which.
    both = ("Gemm", "MatMul") if quantized.keys() >= {"Gemm", "MatMul"} else ()
    groups = [(operator,) for operator in sorted(JOINABLE.intersection(quantized).difference(both))]
    for group in filter(None, (*groups, both)):
        mine = [kernel for kernel in run if set(group).intersection(operators(kernel.name))]
        in_8_bits = sum(kernel.nodes for kernel in mine if kernel.numbers == "8 bits")
        count = sum(quantized[operator] for operator in group)
        if in_8_bits < count and any(kernel.numbers == "float" for kernel in mine):
            yield " or ".join(f"`{operator}`" for operator in group), in_8_bits, count


def _by_node(calls: Sequence[Sequence[Mapping[str, Any]]]) -> dict[tuple[_Kind, _Node], list[int]]:
    """What each node took in each call that ran it; a node in a loop is one, however often it runs."""
    found: dict[tuple[_Kind, _Node], list[int]] = {}
    for call in calls:
        took: Counter[tuple[_Kind, _Node]] = Counter()
        for event in call:
            about = event["args"]
            took[(about["op_name"], _numbers(about)), (event["name"], about.get("node_index", ""))] += event["dur"]
        for node, duration in took.items():
            found.setdefault(node, []).append(duration)
    return found


def _calls(events: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The events of kernels, by the call that they belong to."""
    spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event["name"] == "model_run")
    run = sorted(_of_kernels(events), key=lambda event: event["ts"])
    return [[event for event in run if start <= event["ts"] <= end] for start, end in spans]


def _of_kernels(events: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for event in events:
        is_kernel = event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        name = event["args"].get("op_name") if is_kernel else None
        if name and name not in _CONTROL:
            yield event


def _numbers(about: Mapping[str, Any]) -> Numbers:
    if about["op_name"] in _CONVERSIONS:
        return "conversion"
    types = {kind for shape in about.get("input_type_shape", ()) for kind in shape}
    if about["op_name"] in _MOVES:
        return "other"
    if types & {"int8", "uint8"} and about["op_name"] not in _WEIGHTS_ONLY:
        return "8 bits"
    return "float" if types & _FLOATS else "other"
