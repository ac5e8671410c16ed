"""Progress of a run on standard error: a bar for all steps, a bar for the current step, and the estimated time left.

Where nothing can be shown (there is no standard error, or its reader is gone), nothing is shown and the run continues.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Concatenate, ParamSpec

if TYPE_CHECKING:
    from tqdm import tqdm

# Estimated seconds of a step before one of its kind has finished; only the first estimate depends on them.
_INITIAL_ESTIMATES_S = {
    "export": 8.0,
    "prepare": 5.0,
    "sample": 3.0,
    "calibrate": 10.0,
    "evaluate": 5.0,
    "explain": 3.0,
    "rank": 5.0,
    "score": 1.0,
    "compare": 1.0,
    "shape": 0.5,
}

P = ParamSpec("P")


def _can_draw_bars() -> bool:
    is_terminal = sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
    return is_terminal or "ipykernel" in sys.modules


@contextmanager
def download_progress() -> Iterator[None]:
    """Let huggingface_hub draw progress bars in a block only where they can be drawn; elsewhere they would raise."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if _can_draw_bars() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _hide_on_error(method: Callable[Concatenate[Progress, P], None]) -> Callable[Concatenate[Progress, P], None]:
    """Return a method that hides all progress where the output cannot be written, in place of raising."""

    def wrapper(self: Progress, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except (OSError, ValueError):
            # The stream is closed, or its reader is gone.
            self.hide()

    return wrapper


class Progress(AbstractContextManager["Progress"]):
    """Two bars in a terminal or a notebook; elsewhere one line a step. A context manager that closes the bars.

    `expected` holds the kinds of the steps to do, one entry a step; `timed_s` is the time that measurements will take.
    """

    def __init__(self, expected: Iterable[str], timed_s: float, show: bool = True) -> None:
        self._remaining = Counter(expected)
        self._total = self._remaining.total() + (1 if timed_s else 0)
        self._timed_s = timed_s
        self._durations_s: dict[str, list[float]] = defaultdict(list)
        self._bars: list[tqdm[None]] = []
        self._lines = show and not _can_draw_bars()
        if show and not self._lines:
            from tqdm.auto import tqdm

            steps_format = "{desc:<28.28} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}, {elapsed}{postfix}"
            step_format = "{desc:<28.28} {percentage:3.0f}% |{bar}| {elapsed}{postfix}"
            # A delay keeps the constructor from drawing, where an error of the stream could not be handled.
            self._bars = [
                tqdm(total=self._total, desc="steps", unit="step", bar_format=steps_format, delay=1e-9),
                tqdm(total=1, bar_format=step_format, leave=False, delay=1e-9),
            ]

    def __exit__(self, *error: object) -> None:
        self.hide()

    def hide(self) -> None:
        """Show nothing from now on."""
        bars, self._bars, self._lines = self._bars, [], False
        for bar in reversed(bars):
            # An open bar would write once more when it is garbage-collected.
            with suppress(OSError, ValueError):
                bar.close()

    @property
    def left_s(self) -> float:
        """The estimated seconds to the end, by the median duration of finished steps of each kind."""
        return sum(map(self._estimate_s, self._remaining.elements())) + self._timed_s

    def _estimate_s(self, kind: str) -> float:
        # The first step of a kind includes imports, which a mean would spread over all later ones.
        durations = self._durations_s[kind]
        return statistics.median(durations) if durations else _INITIAL_ESTIMATES_S.get(kind, 2.0)

    @_hide_on_error
    def start(self, description: str) -> None:
        """Show that a step begins."""
        if self._bars:
            self._bars[1].reset(total=1)
            self._bars[1].set_postfix_str("", refresh=False)
            self._bars[1].set_description_str(description)
            self._show()

    @_hide_on_error
    def update(self, done: float, total: float, note: str = "") -> None:
        """Show how much of the current step is done, and a note beside it."""
        if self._bars and total:
            self._bars[1].total = total
            self._bars[1].n = min(done, total)
            self._bars[1].set_postfix_str(note)

    def finish(self, kind: str, description: str, seconds: float, failed: str = "", parallel: int = 1) -> None:
        """Show that a step has ended: `failed` says why it failed, `parallel` how many steps ran side by side."""
        self._durations_s[kind].append(seconds / parallel)
        self.skip([kind])
        if self._lines or failed:
            result = f"failed: {failed}" if failed else f"{seconds:.1f} s"
            left = f", about {format_duration(self.left_s)} left" if self._lines else ""
            self.write_line(f"{description}: {result}{left}")

    def skip(self, kinds: Iterable[str]) -> None:
        """Remove expected steps, one for each kind, that were finished or turned out not to be needed."""
        self._remaining -= Counter(kinds)
        self._show()

    def set_timing_left(self, left_s: float) -> None:
        """Set the seconds that remain to be spent on time measurements."""
        self._timed_s = left_s
        self._show()

    @_hide_on_error
    def write_line(self, line: str) -> None:
        """Write a line above the bars."""
        if self._bars:
            self._bars[0].write(line, file=sys.stderr)
        elif self._lines and sys.stderr is not None:
            # Characters that the stream's encoding lacks are written as escapes.
            encoding = sys.stderr.encoding or "utf-8"
            text = line.encode(encoding, "backslashreplace").decode(encoding)
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - this module writes to standard error

    @_hide_on_error
    def _show(self) -> None:
        if self._bars:
            self._bars[0].n = self._total - self._remaining.total() - (1 if self._timed_s > 0 else 0)
            self._bars[0].set_postfix_str(f"about {format_duration(self.left_s)} left" if self.left_s >= 1 else "")


def format_duration(seconds: float) -> str:
    """Return seconds as text: `45 s`, `2 min 10 s`, `1 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
