"""Data frames as tables in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


_HIDDEN = (
    "latency_p90_ms latency_p95_ms latency_p99.9_ms elapsed_s drift threads spinning first_call_ms load_ms failure "
    "total_time_in_seconds latency_in_seconds"
)


def brief(frame: pd.DataFrame, hidden: list[str]) -> pd.DataFrame:
    """Return the columns that fit a screen: without empty, minor and `hidden` ones, intervals beside figures."""
    bounds = [f"latency_p{rank}_ms_{end}" for rank in ("50", "90", "95", "99", "99.9") for end in ("low", "high")]
    bounds += [f"throughput_per_s_{end}" for end in ("low", "high")]
    shown = frame.drop(columns=bounds, errors="ignore").dropna(axis="columns", how="all").copy()
    for name in [str(column) for column in shown]:
        low, high = f"{name}_low", f"{name}_high"
        if low in shown and high in shown:
            shown[name] = [
                f"{cell(value)} [{cell(least)}, {cell(most)}]" if cell(least) else cell(value)
                for value, least, most in zip(shown[name], shown[low], shown[high])
            ]
            shown = shown.drop(columns=[low, high])
    return shown.drop(columns=[*_HIDDEN.split(), *hidden], errors="ignore")


def table(frame: pd.DataFrame) -> None:
    """Print a data frame as a table that is as wide as the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        # A pipe has no width: do not wrap lines.
        console = Console(width=1000)
    grid = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in frame:
        numbers = frame[name].dtype.kind in "if"
        grid.add_column(str(name), justify="right" if numbers else "left", overflow="fold")
    for row in frame.itertuples(index=False):
        grid.add_row(*(cell(value) for value in row))
    console.print(grid)


def cell(value: object) -> str:
    """Return the text of a cell: four significant digits for a number, empty for a missing value."""
    from benchcard.analysis.frames.columns import is_known

    if not is_known(value):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)
