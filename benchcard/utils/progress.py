"""How far a run is: a bar for steps, a bar for the step at work, and an estimate of what is left.

Where nothing can be shown (there is no standard error, or nobody reads it any more), nothing is, and the run goes on.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Concatenate, ParamSpec

# Seconds that a step of a kind takes when none has been seen yet; only the first estimate depends on them.
FIRST_GUESS_S = {
    "export": 8.0,
    "prepare": 5.0,
    "sample": 3.0,
    "calibrate": 10.0,
    "quantize": 2.0,
    "evaluate": 5.0,
    "explain": 3.0,
    "rank": 5.0,
    "score": 1.0,
    "compare": 1.0,
    "shape": 0.5,
}


P = ParamSpec("P")


def has_screen() -> bool:
    """Whether standard error is a terminal, or this is a notebook: somewhere bars can be drawn."""
    if "ipykernel" in sys.modules:
        return True
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


@contextmanager
def downloads() -> Iterator[None]:
    """A block in which huggingface_hub draws its bars only where there is a screen: elsewhere they would raise."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if has_screen() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _shown(show: Callable[Concatenate[Progress, P], None]) -> Callable[Concatenate[Progress, P], None]:
    """A method that shows something; once that fails, nothing more is shown."""

    def tried(self: Progress, /, *given: P.args, **named: P.kwargs) -> None:
        try:
            show(self, *given, **named)
        except (OSError, ValueError):
            # The stream is closed, or its reader is gone.
            self.hide()

    return tried


class Progress:
    """Two bars on standard error or in a notebook; a line a step where neither is there."""

    def __init__(self, expected: Iterable[str], timed_s: float, show: bool = True) -> None:
        """Bars for the steps that are expected, by kind, and for the seconds that will be timed."""
        self._left = list(expected)
        self._total = len(self._left) + (1 if timed_s else 0)
        self._timed_s = timed_s
        self._seen: dict[str, list[float]] = defaultdict(list)
        self._done = 0
        self._bars: list[Any] = []
        self._lines = False
        if show:
            from tqdm.auto import tqdm

            self._lines = not has_screen()
            if not self._lines:
                steps = "{desc:<28.28} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}, {elapsed}{postfix}"
                part = "{desc:<28.28} {percentage:3.0f}% |{bar}| {elapsed}"
                # With a delay a bar is not drawn while it is made, where nothing could be made of a stream that fails.
                self._bars = [
                    tqdm(total=self._total, unit="step", bar_format=steps, delay=1e-9),
                    tqdm(total=1, bar_format=part, leave=False, delay=1e-9),
                ]
                self._name()
        self._started = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @_shown
    def _name(self) -> None:
        if self._bars:
            self._bars[0].set_description_str("steps")

    @_shown
    def _close(self) -> None:
        for bar in reversed(self._bars):
            bar.close()

    def hide(self) -> None:
        """Show nothing from now on."""
        bars, self._bars, self._lines = self._bars, [], False
        for bar in bars:
            # Or it would try once more when it is collected.
            with suppress(OSError, ValueError):
                bar.close()

    @property
    def left_s(self) -> float:
        """Estimated seconds to the end: each step as long as those of its kind usually took."""
        return sum(self._usual(kind) for kind in self._left) + self._timed_s

    def _usual(self, kind: str) -> float:
        # The first step of a kind also pays for imports: the median forgets it, a mean would not.
        seen = self._seen[kind]
        return statistics.median(seen) if seen else FIRST_GUESS_S.get(kind, 2.0)

    @_shown
    def start(self, what: str) -> None:
        """A step begins."""
        if self._bars:
            self._bars[1].reset(total=1)
            self._bars[1].set_description_str(what)
            self._show()

    @_shown
    def part(self, done: float, total: float) -> None:
        """The step at work is `done` of `total`."""
        if self._bars and total:
            self._bars[1].total = total
            self._bars[1].n = min(done, total)
            self._bars[1].refresh()

    def finish(self, kind: str, what: str, seconds: float, failed: str = "", at_a_time: int = 1) -> None:
        """A step is over, which was one of so many that are done side by side."""
        self._seen[kind].append(seconds / at_a_time)
        if kind in self._left:
            self._left.remove(kind)
        self._done += 1
        self._show()
        if self._lines or failed:
            self.say(
                f"{what}: {f'failed: {failed}' if failed else f'{seconds:.1f} s'}"
                + (f", about {clock(self.left_s)} left" if self._lines else "")
            )

    def skip(self, kinds: Iterable[str]) -> None:
        """Steps that were expected are not needed: another row made them, or a way ended early."""
        for kind in kinds:
            if kind in self._left:
                self._left.remove(kind)
        self._show()

    def timed(self, left_s: float) -> None:
        """Seconds of timing that are left."""
        self._timed_s = left_s
        self._show()

    @_shown
    def say(self, line: str) -> None:
        """One line, above the bars."""
        if self._bars:
            self._bars[0].write(line, file=sys.stderr)
        elif self._lines and sys.stderr is not None:
            # A stream of another encoding shows what it cannot write by its number.
            encoding = sys.stderr.encoding or "utf-8"
            shown = line.encode(encoding, "backslashreplace").decode(encoding)
            print(shown, file=sys.stderr, flush=True)  # noqa: T201 - this is what the module is for

    @_shown
    def _show(self) -> None:
        if self._bars:
            self._bars[0].n = self._total - len(self._left) - (1 if self._timed_s > 0 else 0)
            self._bars[0].set_postfix_str(f"about {clock(self.left_s)} left" if self.left_s >= 1 else "")


def clock(seconds: float) -> str:
    """Seconds as text: `45 s`, `2 min 10 s`, `1 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
