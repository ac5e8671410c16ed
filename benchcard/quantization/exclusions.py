r"""Which nodes an exclusion leaves in float32, and whether that makes any difference.

This module owns how exclusions are written and what each of them matches. The patterns are found in `patterns`; the
quantization is in `quantize`. An exclusion is one of:

- a pattern: `layernorm`, `gelu`, `residual`, `gather`, `softmax`, `residual-add-relu`, `residual-relu-conv`;
- the exact name of a node of the graph;
- `re:` and a regular expression that must match the whole name of a node: `re:.*/layer\.0/.*`.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from benchcard.errors import ArtifactError
from benchcard.graphs.graph import Graph, graph_of, load_graph
from benchcard.quantization.operators import float_reasons, requested_operators, supported_operators
from benchcard.quantization.outcomes import Exclusion
from benchcard.quantization.patterns import FINDERS
from benchcard.quantization.settings import Quantization
from benchcard.utils.text import closest, did_you_mean, join_names, quote_names

PATTERNS = tuple(FINDERS)
REGULAR_EXPRESSION = "re:"


def match_exclusions(
    model: Path | onnx.ModelProto, exclusions: Sequence[str], settings: Quantization
) -> tuple[Exclusion, ...]:
    """Return what each exclusion matches in a model or its file; nodes of a model without a name are given one.

    `nodes_to_exclude` of the settings is not read.

    Raises:
        ArtifactError: A pattern is misspelt, or a regular expression is invalid.
    """
    graph = load_graph(model) if isinstance(model, Path) else graph_of(model)
    reasons = float_reasons(graph, replace(settings, nodes_to_exclude=()))
    matches: list[Exclusion] = []
    for exclusion in exclusions:
        groups = _match(graph, exclusion)
        matched = {name for group in groups for name in group}
        nodes = tuple(name for name in graph.nodes if name in matched)
        changed = tuple(name for name in nodes if name in reasons and reasons[name] is None)
        remark = "" if changed else _remark(graph, exclusion, nodes, settings)
        matches.append(Exclusion(exclusion, len(groups), nodes, changed, remark))
    return tuple(matches)


def excluded_names(exclusions: Iterable[Exclusion]) -> tuple[str, ...]:
    """Return the names of all matched nodes, each once, for `Quantization.nodes_to_exclude`."""
    return tuple(dict.fromkeys(name for exclusion in exclusions for name in exclusion.nodes))


def patterns_with(model: Path, node: str) -> tuple[str, ...]:
    """Return the patterns that a node of a model file belongs to."""
    return tuple(pattern for pattern, nodes in _places(model).items() if node in nodes)


@functools.lru_cache(maxsize=2)
def _places(model: Path) -> Mapping[str, frozenset[str]]:
    """Return the nodes of a model file that belong to each pattern, cached for the rows that are made of it."""
    graph = load_graph(model)
    return {pattern: frozenset(itertools.chain(*find(graph))) for pattern, find in FINDERS.items()}


def _match(graph: Graph, exclusion: str) -> list[tuple[str, ...]]:
    """Return the nodes of each place that an exclusion matches."""
    if exclusion in FINDERS:
        return list(FINDERS[exclusion](graph))
    if exclusion.startswith(REGULAR_EXPRESSION):
        try:
            expression = re.compile(exclusion.removeprefix(REGULAR_EXPRESSION))
        except re.error as error:
            raise ArtifactError(f"`{exclusion}` is not a valid regular expression: {error}.") from error
        return [(name,) for name in graph.nodes if expression.fullmatch(name)]
    if exclusion in graph.nodes:
        return [(exclusion,)]
    # A word that is less similar to any pattern is taken for the name of a node.
    if pattern := closest(exclusion, PATTERNS, 0.75):
        raise ArtifactError(
            f"There is no pattern and no node named `{exclusion}` (did you mean `{pattern}`?). "
            f"The patterns are {join_names(PATTERNS)}."
        )
    return []


def _remark(graph: Graph, exclusion: str, nodes: tuple[str, ...], settings: Quantization) -> str:
    if not nodes:
        if exclusion in FINDERS:
            return f"matched nothing: the graph has no such pattern (opset {graph.opset})"
        if exclusion.startswith(REGULAR_EXPRESSION):
            return "matched nothing: no node has such a name"
        hint = did_you_mean(exclusion, graph.nodes)
        return f"matched nothing: the graph has no node of this name{f' ({hint})' if hint else ''}"
    requested, supported = requested_operators(settings), supported_operators(settings)
    operators_by_reason: dict[str, list[str]] = {}
    for operator in dict.fromkeys(graph.nodes[name].op_type for name in nodes):
        kernel = "not quantized here anyway" if operator in supported else f"without a {settings.form}"
        reason = kernel if operator in requested else "not among the operators to quantize"
        operators_by_reason.setdefault(reason, []).append(operator)
    parts = [
        f"{quote_names(operators)} {'is' if len(operators) == 1 else 'are'} {reason}"
        for reason, operators in operators_by_reason.items()
    ]
    return "changes nothing: " + ", ".join(parts)
