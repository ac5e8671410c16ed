"""The picture of a card: quality against latency, or against cost where machines with prices were compared, with
intervals and Pareto fronts, as a PNG.

Needs matplotlib, which is an extra: without it there is no picture. Equal facts give equal bytes with one version of
matplotlib, whatever the user's settings. The background is transparent; colours are legible on light and dark pages.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Set
from importlib import util
from typing import TYPE_CHECKING, Any, TypeAlias

from benchcard.card.facts import LATENCY_MEAN, Facts
from benchcard.card.layouts.figures import format_size, latency_name
from benchcard.card.layouts.full_tables import COST, CPU_COLUMNS, PHASE_COLUMNS, pictured
from benchcard.utils.values import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Points: TypeAlias = dict[int, tuple[Interval, Interval]]
"""Latency or cost, and quality, of each row."""

INK = "#7a7d82"
BASELINE = "#c07b1c"
CHOSEN = "#2f8f5b"
OTHERS = "#5b84c4"
"""Source: WCAG 2.2, 1.4.11: each has a contrast of 3 or more against white and against #0d1117, GitHub's dark page."""

_SIZE_INCHES = (7.2, 3.3)
_DOTS_PER_INCH = 150
# Above this ratio of the slowest to the fastest row, the latency axis is logarithmic.
_MAX_LINEAR_RATIO = 2.5
# Points nearer to each other than this, in x and y dots, share one label.
_LABEL_SIZE = (45.0, 40.0)


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return util.find_spec("matplotlib") is not None


def render_png(facts: Facts) -> bytes | None:
    """Return the picture; None if there are fewer than two rows to draw, or no matplotlib."""
    if not facts.shapes or not facts.metrics or not can_draw():
        return None
    points = _points(facts)
    if len(points) < 2:
        return None
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A character that the font lacks is drawn as a box; that is no reason for a warning.
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        figure = Figure(figsize=_SIZE_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        _draw(figure.add_subplot(), facts, points)
        file = io.BytesIO()
        figure.savefig(file, format="png", transparent=True, metadata={"Software": None})
    return file.getvalue()


def _points(facts: Facts) -> _Points:
    """Return the rows to draw; a row with the model and figures of an earlier one is drawn only if it has a role."""
    points: _Points = {}
    with_role = {*facts.baselines, *facts.recommended, *facts.pareto}
    for index, row in enumerate(facts.rows):
        latency = row.time(facts.shapes[0], pictured(facts))
        quality = row.metrics.get(facts.metrics[0].name)
        if latency is None or quality is None:
            continue
        if row.same_model_as is None or index in with_role or (latency, quality) not in points.values():
            points[index] = (latency, quality)
    return points


def _draw(axes: Axes, facts: Facts, points: _Points) -> None:
    chosen, baselines = {*facts.recommended}, {*facts.baselines}
    for line in front_lines(facts, points):
        axes.plot(*zip(*line), color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1, label="Pareto front")
    for index, (latency, quality) in points.items():
        colour, marker, size = OTHERS, "o", 6.0
        if index in baselines:
            colour, marker, size = BASELINE, "s", 8.0
        if index in chosen:
            colour, marker, size = CHOSEN, "D", 8.0
        style: dict[str, Any] = {"fmt": marker, "color": colour, "markersize": size, "elinewidth": 1.1, "zorder": 3}
        bars = axes.errorbar(latency.value, quality.value, xerr=_error_bar(latency), yerr=_error_bar(quality), **style)
        for bar in bars[2]:
            bar.set_alpha(0.55)
    _format_axes(axes, facts, points)
    _label_points(axes, points, chosen | baselines)
    _draw_legend(axes, points.keys(), chosen, baselines)


def _draw_legend(axes: Axes, rows: Set[int], chosen: set[int], baselines: set[int]) -> None:
    gains = chosen - baselines
    entries = (
        ("D", CHOSEN, "recommended" if rows & gains else "recommended: the baseline", rows & chosen),
        ("s", BASELINE, "baseline", rows & (baselines - chosen)),
        ("o", OTHERS, "other rows", rows - baselines - gains),
    )
    handles = [
        axes.plot([], [], marker, color=colour, markersize=7, linestyle="", label=label)[0]
        for marker, colour, label, shown in entries
        if shown
    ]
    fronts = [line for line in axes.get_lines() if line.get_label() == "Pareto front"][:1]
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 4}
    axes.legend(handles=[*handles, *fronts], frameon=False, labelcolor=INK, fontsize=10, **above)


def front_lines(facts: Facts, points: _Points) -> list[list[tuple[float, float]]]:
    """Return the line through the points of each Pareto front; rows with other examples are on another front."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for index in facts.pareto if pictured(facts) == LATENCY_MEAN else _cheapest_rows(facts, points):
        if index in points:
            latency, quality = points[index]
            lines.setdefault(facts.rows[index].examples, []).append((latency.value, quality.value))
    return [sorted(line) for line in lines.values() if len(line) > 1]


def _cheapest_rows(facts: Facts, points: _Points) -> list[int]:
    """Return the rows of the same examples that no other row beats in both quality and cost."""
    sign = 1.0 if facts.metrics[0].higher_is_better is not False else -1.0

    def beats(other: int, row: int) -> bool:
        (cost, quality), (own_cost, own_quality) = points[other], points[row]
        gains = own_cost.value - cost.value, sign * (quality.value - own_quality.value)
        return facts.rows[other].examples == facts.rows[row].examples and min(gains) >= 0 < max(gains)

    return [row for row in points if not any(beats(other, row) for other in points)]


def _label_points(axes: Axes, points: _Points, bold: set[int]) -> None:
    """Write the number of each row above its point; points that are close together share one label."""
    import numpy as np
    from scipy.sparse.csgraph import connected_components

    axes.autoscale_view()
    rows = np.array(list(points))
    places = axes.transData.transform([(latency.value, quality.value) for latency, quality in points.values()])
    are_near = (np.abs(places[:, np.newaxis] - places) < _LABEL_SIZE).all(axis=2)
    count, group_of = connected_components(are_near)
    for group in range(count):
        members, (x, y) = rows[group_of == group], places[group_of == group].T
        anchor_x, anchor_y = axes.transData.inverted().transform(((x.min() + x.max()) / 2, y.max()))
        weight = "bold" if bold.intersection(members) else "normal"
        style: dict[str, Any] = {"ha": "center", "color": INK, "fontsize": 10, "fontweight": weight, "zorder": 4}
        label = ", ".join(map(str, sorted(members)))
        axes.annotate(label, (anchor_x, anchor_y), xytext=(0, 8), textcoords="offset points", **style)


def _format_axes(axes: Axes, facts: Facts, points: _Points) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    latencies = [latency.value for latency, _ in points.values()]
    if 0 < _MAX_LINEAR_RATIO * min(latencies) < max(latencies):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.08, y=0.12)
    costs = CPU_COLUMNS | PHASE_COLUMNS.get(facts.shapes[0].phase or "", {})
    name = f"{latency_name(facts.shapes[0])} in ms" if pictured(facts) == LATENCY_MEAN else costs[COST]
    axes.set_xlabel(f"{name} at {format_size(facts.shapes[0])}")
    metric = facts.metrics[0]
    name = "".join(char if char.isprintable() else " " for char in metric.name)
    axes.set_ylabel(f"{name} ({metric.unit})" if metric.unit else name)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=10.5, parse_math=False)
    axes.tick_params(which="both", colors=INK, labelsize=10)
    axes.grid(True, color=INK, alpha=0.22, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)


def _error_bar(figure: Interval) -> list[list[float]] | None:
    if figure.low is None or figure.high is None:
        return None
    return [[max(0.0, figure.value - figure.low)], [max(0.0, figure.high - figure.value)]]
