"""The picture of a card: quality against latency, with intervals and Pareto fronts, as a PNG.

Owns what is drawn and how. Needs matplotlib, which is an extra: without it there is no picture. Equal facts give equal
bytes with one version of matplotlib, whatever the user's own settings; nothing is drawn on a background, in colours
that are read on a light page and on a dark one.
"""

from __future__ import annotations

import io
import warnings
from importlib import util
from typing import Any

from benchcard.card.facts import LATENCY_MEAN, Facts, Figure
from benchcard.card.layouts import row_groups

INK = "#7a7d82"
BASELINE = "#c07b1c"
CHOSEN = "#2f8f5b"
OTHERS = "#5b84c4"
"""Source: WCAG 2.2, 1.4.11: each has a contrast of 3 or more against white and against #0d1117, GitHub's dark page."""

_SIZE_INCHES = (7.2, 4.0)
_DOTS_PER_INCH = 150
# From this ratio of the slowest to the fastest on, latencies stand on a logarithmic axis.
_SPREAD = 2.5
# Points nearer to each other than this, across and up in dots, share one label.
_CROWD = (45.0, 40.0)


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return util.find_spec("matplotlib") is not None


def png(facts: Facts) -> bytes | None:
    """The picture; None where there are not two rows to draw, or no matplotlib to draw them with."""
    if not facts.shapes or not facts.metrics or not can_draw():
        return None
    points = _points(facts)
    if len(points) < 2:
        return None
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box; that is no reason to warn whoever makes a card.
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        drawing = Drawing(figsize=_SIZE_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(drawing)
        _draw(drawing.add_subplot(), facts, points)
        file = io.BytesIO()
        drawing.savefig(file, format="png", transparent=True, metadata={"Software": None})
    return file.getvalue()


def _points(facts: Facts) -> dict[int, tuple[Figure, Figure]]:
    """Latency and quality of each row that has both; of a model whose figures are those of an earlier row only that
    one, unless something is said of the other, too.
    """
    found: dict[int, tuple[Figure, Figure]] = {}
    named = {*row_groups.baselines(facts), *row_groups.recommended(facts), *facts.pareto}
    for index, row in enumerate(facts.rows):
        latency = row.times.get(facts.shapes[0], {}).get(LATENCY_MEAN)
        value = row.metrics.get(facts.metrics[0].name)
        if latency is None or value is None:
            continue
        if row.same_model_as is None or index in named or (latency, value) not in found.values():
            found[index] = (latency, value)
    return found


def _draw(axes: Any, facts: Facts, points: dict[int, tuple[Figure, Figure]]) -> None:
    chosen, baselines = row_groups.recommended(facts), row_groups.baselines(facts)
    for front in lines(facts, points):
        axes.plot(*zip(*front), color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1, label="Pareto front")
    for index, (latency, value) in points.items():
        colour, marker, size = OTHERS, "o", 6.0
        if index in baselines:
            colour, marker, size = BASELINE, "s", 8.0
        if index in chosen:
            colour, marker, size = CHOSEN, "D", 8.0
        bars = axes.errorbar(
            latency.value,
            value.value,
            xerr=_spread(latency),
            yerr=_spread(value),
            fmt=marker,
            color=colour,
            markersize=size,
            elinewidth=1.1,
            zorder=3,
        )
        for bar in bars[2]:
            bar.set_alpha(0.55)
    _settle_axes(axes, facts, points)
    _name_points(axes, facts, points)
    kept, gained = {*chosen} & {*baselines}, {*chosen} - {*baselines}
    handles = [
        axes.plot([], [], marker, color=colour, markersize=7, linestyle="", label=label)[0]
        for marker, colour, label, is_there in (
            ("D", CHOSEN, "recommended: the baseline", bool(points.keys() & kept) and not points.keys() & gained),
            ("D", CHOSEN, "recommended", bool(points.keys() & gained)),
            ("s", BASELINE, "baseline", bool(points.keys() & {*baselines} - kept)),
            ("o", OTHERS, "other rows", bool(points.keys() - {*baselines} - gained)),
        )
        if is_there
    ]
    drawn = [line for line in axes.get_lines() if line.get_label() == "Pareto front"][:1]
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 4}
    axes.legend(handles=[*handles, *drawn], frameon=False, labelcolor=INK, fontsize=10, **above)


def lines(facts: Facts, points: dict[int, tuple[Figure, Figure]]) -> list[list[tuple[float, float]]]:
    """The lines through the points of each Pareto front, rows of other examples being on another one."""
    fronts = [
        sorted((points[index][0].value, points[index][1].value) for index in front if index in points)
        for front in row_groups.fronts(facts)
    ]
    return [front for front in fronts if len(front) > 1]


def _name_points(axes: Any, facts: Facts, points: dict[int, tuple[Figure, Figure]]) -> None:
    """The number of each row above its point; where points crowd, all their numbers in one place."""
    axes.autoscale_view()
    places = {
        index: axes.transData.transform((latency.value, value.value)) for index, (latency, value) in points.items()
    }
    crowds: list[list[int]] = []
    for index, (across, up) in places.items():
        near = [
            crowd
            for crowd in crowds
            if any(
                abs(across - places[other][0]) < _CROWD[0] and abs(up - places[other][1]) < _CROWD[1] for other in crowd
            )
        ]
        crowds = [crowd for crowd in crowds if crowd not in near]
        crowds.append([index, *(other for crowd in near for other in crowd)])
    marked = {*row_groups.baselines(facts), *row_groups.recommended(facts)}
    for crowd in crowds:
        highest = max(crowd, key=lambda index: places[index][1])
        middle = (min(places[index][0] for index in crowd) + max(places[index][0] for index in crowd)) / 2
        axes.annotate(
            ", ".join(map(str, sorted(crowd))),
            axes.transData.inverted().transform((middle, places[highest][1])),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            color=INK,
            fontsize=10,
            fontweight="bold" if marked.intersection(crowd) else "normal",
            zorder=4,
        )


def _settle_axes(axes: Any, facts: Facts, points: dict[int, tuple[Figure, Figure]]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    latencies = [latency.value for latency, _ in points.values()]
    if min(latencies) > 0 and max(latencies) / min(latencies) > _SPREAD:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.08, y=0.12)
    shape = facts.shapes[0]
    length = "" if shape.input_length is None else f", input length {shape.input_length}"
    style = {"color": INK, "fontsize": 10.5, "parse_math": False}
    axes.set_xlabel(f"mean latency in ms at batch size {shape.batch_size}{length}", **style)
    metric = facts.metrics[0]
    name = "".join(char if char.isprintable() else " " for char in metric.name)
    axes.set_ylabel(f"{name} ({metric.unit})" if metric.unit else name, **style)
    axes.tick_params(which="both", colors=INK, labelsize=10)
    axes.grid(True, color=INK, alpha=0.22, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)


def _spread(figure: Figure) -> list[list[float]] | None:
    if figure.interval is None:
        return None
    return [[max(0.0, figure.value - figure.interval.low)], [max(0.0, figure.interval.high - figure.value)]]
