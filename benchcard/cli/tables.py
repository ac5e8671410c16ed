"""Frames as the commands show them: a table on a screen, of the columns that fit one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def brief(frame: pd.DataFrame, fixed: list[str]) -> pd.DataFrame:
    """What fits a screen of a frame: without what is empty or behind other figures, and an interval in one column with
    its figure.
    """
    unshown = [f"latency_p{rank}_ms_{end}" for rank in ("50", "90", "95", "99", "99.9") for end in ("low", "high")]
    unshown += [f"throughput_per_s_{end}" for end in ("low", "high")]
    shown = frame.drop(columns=unshown, errors="ignore").dropna(axis="columns", how="all").copy()
    for name in [str(column) for column in shown]:
        low, high = f"{name}_low", f"{name}_high"
        if low in shown and high in shown:
            bounds = zip(shown[name], shown[low], shown[high])
            shown[name] = [
                f"{cell(value)} [{cell(least)}, {cell(most)}]" if cell(least) else cell(value)
                for value, least, most in bounds
            ]
            shown = shown.drop(columns=[low, high])
    hidden = [
        "latency_p90_ms",
        "latency_p95_ms",
        "latency_p99.9_ms",
        "elapsed_s",
        "drift",
        "threads",
        "spinning",
        "first_call_ms",
        "load_ms",
        "failure",
        "total_time_in_seconds",
        "latency_in_seconds",
    ]
    return shown.drop(columns=[*hidden, *fixed], errors="ignore")


def table(frame: pd.DataFrame) -> None:
    """A frame as a table as wide as the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        # A pipe has no width: let no line be broken.
        console = Console(width=1000)
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in frame:
        numbers = frame[name].dtype.kind in "if"
        drawn.add_column(str(name), justify="right" if numbers else "left", overflow="fold")
    for row in frame.itertuples(index=False):
        drawn.add_row(*(cell(value) for value in row))
    console.print(drawn)


def cell(value: Any) -> str:
    """A value as a cell shows it: four digits, and nothing where there is none."""
    if value is None or str(value) in ("<NA>", "nan"):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)
