r"""Which nodes an exclusion leaves in float32, and whether that makes any difference.

This module owns how exclusions are written and what each of them came to. The patterns are found in `patterns`; the
quantizing is in `quantize`.

An exclusion is one of:

- a pattern: `layernorm`, `gelu`, `residual`, `gather`, `softmax`, `residual-add-relu`, `residual-relu-conv`;
- the name of a node, exactly as it stands in the graph;
- `re:` and a regular expression, which must match the whole name of a node: `re:.*/layer\.0/.*`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from benchcard.errors import ArtifactError
from benchcard.graphs.files import stamp
from benchcard.graphs.graph import Graph, graph_at, graph_of
from benchcard.quantization.operators import Quantization, asked_operators, kernels, standings
from benchcard.quantization.patterns import FINDERS
from benchcard.utils.text import did_you_mean, join_names

if TYPE_CHECKING:
    import onnx


PATTERNS = tuple(FINDERS)
REGULAR_EXPRESSION = "re:"
# Above this likeness (0 to 1, `difflib`) a word is taken for a misspelt pattern, and below for the name of a node.
_MISSPELT = 0.75


@dataclass(frozen=True)
class Exclusion:
    """What one exclusion came to.

    Attributes:
        pattern: The exclusion as it was given.
        instances: How often it was found: two for two layer norms, however many nodes these have.
        nodes: Names of the nodes it matched, in the graph's order.
        would_be_quantized: Those of them that would have been quantized without any exclusion.
        remark: Why it makes no difference; empty where it does.
    """

    pattern: str
    instances: int
    nodes: tuple[str, ...]
    would_be_quantized: tuple[str, ...]
    remark: str = ""


def match_exclusions(
    model: Path | onnx.ModelProto, exclusions: Sequence[str], how: Quantization
) -> tuple[Exclusion, ...]:
    """What each exclusion comes to in a model, in the order given.

    Args:
        model: The float model, or its file. One in memory gets names for nodes that have none.
        exclusions: As told at the top of this module.
        how: The quantization, of which `nodes_to_exclude` is not read.

    Raises:
        ArtifactError: A pattern's name is misspelt, or a regular expression is none.
    """
    graph = graph_at(model) if isinstance(model, Path) else graph_of(model)
    quantized = {name for name, reason in standings(graph, how).items() if not reason}
    order = {name: index for index, name in enumerate(graph.nodes)}
    found: list[Exclusion] = []
    for exclusion in exclusions:
        groups = _groups(graph, exclusion)
        nodes = tuple(sorted({name for group in groups for name in group}, key=order.__getitem__))
        changed = tuple(name for name in nodes if name in quantized)
        remark = "" if changed else _remark(graph, exclusion, nodes, how)
        found.append(Exclusion(exclusion, len(groups), nodes, changed, remark))
    return tuple(found)


def excluded_names(exclusions: Iterable[Exclusion]) -> tuple[str, ...]:
    """The names of all nodes that were matched, each once, for `Quantization.nodes_to_exclude`."""
    return tuple(dict.fromkeys(name for exclusion in exclusions for name in exclusion.nodes))


def patterns_with(model: Path, node: str) -> tuple[str, ...]:
    """The patterns that hold a node of a model's file."""
    return tuple(pattern for pattern, nodes in _found(model, stamp(model)).items() if node in nodes)


@functools.lru_cache(maxsize=2)
def _found(model: Path, stamp: tuple[int, int]) -> Mapping[str, frozenset[str]]:
    """The nodes of each pattern in a model's file, remembered for the rows of a grid."""
    graph = graph_at(model)
    return MappingProxyType(
        {pattern: frozenset(name for group in find(graph) for name in group) for pattern, find in FINDERS.items()}
    )


def _groups(graph: Graph, exclusion: str) -> list[tuple[str, ...]]:
    if exclusion in FINDERS:
        return list(FINDERS[exclusion](graph))
    if exclusion.startswith(REGULAR_EXPRESSION):
        try:
            expression = re.compile(exclusion.removeprefix(REGULAR_EXPRESSION))
        except re.error as error:
            raise ArtifactError(f"`{exclusion}` is no regular expression: {error}.") from error
        return [(name,) for name in graph.nodes if expression.fullmatch(name)]
    if exclusion in graph.nodes:
        return [(exclusion,)]
    from difflib import get_close_matches

    close = get_close_matches(exclusion.lower(), PATTERNS, n=1, cutoff=_MISSPELT)
    if close:
        raise ArtifactError(
            f"There is no pattern, nor a node, named `{exclusion}` (did you mean `{close[0]}`?). "
            f"The patterns are {join_names(PATTERNS)}."
        )
    return []


def _remark(graph: Graph, exclusion: str, nodes: tuple[str, ...], how: Quantization) -> str:
    """Why an exclusion changes nothing."""
    if not nodes:
        if exclusion in FINDERS:
            return f"matched nothing: the graph has no such pattern (opset {graph.opset})"
        if exclusion.startswith(REGULAR_EXPRESSION):
            return "matched nothing: no node has such a name"
        hint = did_you_mean(exclusion, graph.nodes)
        return f"matched nothing: the graph has no node of this name{f' ({hint})' if hint else ''}"
    kinds = _by_operator(graph, nodes)
    asked, able = asked_operators(how), kernels(how)
    unasked = [operator for operator in kinds if operator not in asked]
    without = [operator for operator in kinds if operator in asked and operator not in able]
    rest = [operator for operator in kinds if operator in asked and operator in able]
    parts: list[str] = []
    if unasked:
        parts.append(f"{_named(unasked)} not among the operators to quantize")
    if without:
        parts.append(f"{_named(without)} without a {how.layout} kernel")
    if rest:
        parts.append(f"{_named(rest)} not quantized here anyway")
    return "changes nothing: " + ", ".join(parts)


def _by_operator(graph: Graph, nodes: tuple[str, ...]) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for name in nodes:
        operator = graph.nodes[name].op_type
        counts[operator] = counts.get(operator, 0) + 1
    return MappingProxyType(counts)


def _named(operators: list[str]) -> str:
    return join_names(operators).replace(" or ", " and ") + (" is" if len(operators) == 1 else " are")
