"""Progress of a run: shown in a terminal, a notebook or a log file, passed to a program as events, and logged.

Where nothing can be shown (there is no standard error, or its reader is gone), nothing is shown and the run continues.
"""

from __future__ import annotations

import importlib.util
import logging
import statistics
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from benchcard.utils.events import Event, Listener, StepEvent
from benchcard.utils.values import Failure

if TYPE_CHECKING:
    from tqdm import tqdm

# The output of a notebook changes at most this often.
_LEAST_S = 1.0
P = ParamSpec("P")

LOG = logging.getLogger("benchcard")
# Python prints warnings of loggers without a handler, which would repeat what is shown.
LOG.addHandler(logging.NullHandler())


def _log(level: int, message: object) -> None:
    """Log a message; what cannot be encoded, and so written by handlers, is replaced by an escape sequence."""
    if LOG.isEnabledFor(level):
        LOG.log(level, "%s", str(message).encode("utf-8", "backslashreplace").decode())


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules


def _can_draw_bars() -> bool:
    if _in_notebook():
        return importlib.util.find_spec("ipywidgets") is not None
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


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


@contextmanager
def no_dataset_progress() -> Iterator[None]:
    """Let `datasets` draw no progress bars in a block."""
    import datasets

    were_enabled = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if were_enabled:
            datasets.enable_progress_bars()


def _hide_on_error(method: Callable[Concatenate[Progress, P], None]) -> Callable[Concatenate[Progress, P], None]:
    """Return a method that hides all progress where the output cannot be written, in place of raising."""

    def wrapper(self: Progress, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except (OSError, ValueError):
            # The stream is closed, or its reader is gone.
            self.hide()

    return wrapper


class _Display:
    """A display that shows nothing."""

    def start(self, description: str) -> None:
        """Show that a step begins."""

    def update(self, share: float, note: str) -> None:
        """Show how much of the current step is done, and a note beside it."""

    def count(self, done: int, total: int, left: str) -> None:
        """Show how many steps are done, and how much time is left."""

    def finish(self, event: StepEvent) -> None:
        """Show that a step has ended."""
        if event.failures:
            self.write(str(event))

    def write(self, line: str) -> None:
        """Show a line that stays."""

    def close(self) -> None:
        """Show nothing from now on."""


class _Lines(_Display):
    """One line a step on standard error."""

    def finish(self, event: StepEvent) -> None:
        self.write(f"{event}, about {format_duration(event.left_s)} left")

    def write(self, line: str) -> None:
        if sys.stderr is not None:
            # Characters that the stream's encoding lacks are written as escapes.
            encoding = sys.stderr.encoding or "utf-8"
            text = line.encode(encoding, "backslashreplace").decode(encoding)
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - this module writes to standard error


class _Bars(_Display):
    """A bar for all steps and one for the current step, in a terminal or as widgets of a notebook."""

    def __init__(self, total: int) -> None:
        from tqdm.auto import tqdm

        steps_format = "{desc:<28.28} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}, {elapsed}{postfix}"
        step_format = "{desc:<28.28} {percentage:3.0f}% |{bar}| {elapsed}{postfix}"
        # A delay keeps the constructor from drawing, where an error of the stream could not be handled.
        self._steps: tqdm[None] = tqdm(total=total, desc="steps", unit="step", bar_format=steps_format, delay=1e-9)
        self._step: tqdm[None] = tqdm(total=1, bar_format=step_format, leave=False, delay=1e-9)

    def start(self, description: str) -> None:
        self._step.reset(total=1)
        self._step.set_postfix_str("", refresh=False)
        self._step.set_description_str(description)

    def update(self, share: float, note: str) -> None:
        self._step.n = share
        self._step.set_postfix_str(note)

    def count(self, done: int, total: int, left: str) -> None:
        self._steps.n = done
        self._steps.set_postfix_str(left)

    def write(self, line: str) -> None:
        self._steps.write(line, file=sys.stderr)

    def close(self) -> None:
        for bar in (self._step, self._steps):
            # An open bar would write once more when it is garbage-collected.
            with suppress(OSError, ValueError):
                bar.close()


class _Cell(_Display):
    """A single output of a notebook, changed at most once a second and when it is closed.

    A text of bars would need an output for each change, and the notebook keeps them all.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        from IPython.display import DisplayHandle

        self._clock = clock
        self._handle: DisplayHandle | None = DisplayHandle()
        self._lines: list[str] = []
        self._step = self._note = self._steps = ""
        self._shown_s: float | None = None
        self._timer: threading.Timer | None = None

    def start(self, description: str) -> None:
        self._step, self._note = description, ""
        if (wait_s := self._show()) > 0 and self._timer is None:
            # The step may have no news of its own for long.
            self._timer = threading.Timer(wait_s, self._show_late)
            self._timer.start()

    def update(self, share: float, note: str) -> None:
        self._note = f" {share:.0%}{f', {note}' if note else ''}"
        self._show()

    def count(self, done: int, total: int, left: str) -> None:
        self._steps = f"{done} of {total} steps{f', {left}' if left else ''}"
        self._show()

    def write(self, line: str) -> None:
        self._lines.append(line)
        self._show()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._step = self._note = ""
        self._show(least_s=0)
        self._handle = None

    def _show_late(self) -> None:
        self._timer = None
        with suppress(OSError, ValueError):  # as `_hide_on_error` does
            self._show()

    def _show(self, least_s: float = _LEAST_S) -> float:
        """Show the text, unless it was shown less than `least_s` ago. Return the seconds until it may be."""
        now_s = self._clock()
        if self._handle is None:
            return 0.0  # It is closed.
        if self._shown_s is not None and now_s < self._shown_s + least_s:
            return self._shown_s + least_s - now_s
        text = "\n".join([*self._lines, ": ".join(filter(None, [self._steps, f"{self._step}{self._note}"]))])
        change = self._handle.display if self._shown_s is None else self._handle.update
        change({"text/plain": text}, raw=True)
        self._shown_s = now_s
        return 0.0


def _new_display(total: int, clock: Callable[[], float]) -> _Display:
    if _can_draw_bars():
        return _Bars(total)
    return _Cell(clock) if _in_notebook() else _Lines()


class Progress(AbstractContextManager["Progress"]):
    """The progress of a run: shown, passed to a listener, and logged. A context manager that closes the display.

    `expected` holds the kinds of the steps to do, one entry a step; `timed_s` is the time that measurements will take.
    `listener` is a function that is called with each event, and then nothing is shown; True to show it, False for
    neither. `clock` returns seconds. `step_s` is what a step of each kind is expected to take, until one is finished.
    """

    def __init__(
        self,
        expected: Iterable[str],
        timed_s: float,
        listener: Listener | bool = True,
        clock: Callable[[], float] = time.monotonic,
        step_s: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._step_s = step_s
        self._remaining = Counter(expected)
        self._total = self._remaining.total() + (1 if timed_s else 0)
        self._timed_s = timed_s
        self._durations_s: dict[str, list[float]] = defaultdict(list)
        self._listener = listener if callable(listener) else None
        self._display = _new_display(self._total, clock) if listener is True else _Display()

    def __exit__(self, *error: object) -> None:
        self.hide()

    def hide(self) -> None:
        """Show nothing from now on."""
        display, self._display = self._display, _Display()
        display.close()

    @property
    def left_s(self) -> float:
        """The estimated seconds to the end, by the median duration of finished steps of each kind."""
        return sum(map(self._estimate_s, self._remaining.elements())) + self._timed_s

    @property
    def _done(self) -> int:
        return self._total - self._remaining.total() - (1 if self._timed_s > 0 else 0)

    def _estimate_s(self, kind: str) -> float:
        # The first step of a kind includes imports, which a mean would spread over all later ones.
        durations = self._durations_s[kind]
        return statistics.median(durations) if durations else self._step_s.get(kind, 2.0)

    @_hide_on_error
    def start(self, description: str) -> None:
        """Show that a step begins."""
        self._display.start(description)
        self._count()

    @_hide_on_error
    def update(self, done: float, total: float, note: str = "") -> None:
        """Show how much of the current step is done, and a note beside it."""
        if total:
            self._display.update(min(done / total, 1.0), note)

    def finish(
        self, kind: str, description: str, seconds: float, failures: Iterable[Failure] = (), parallel: int = 1
    ) -> None:
        """Report that a step has ended; `parallel` is how many steps ran side by side."""
        self._durations_s[kind].append(seconds / parallel)
        self.skip([kind])
        event = StepEvent(
            left_s=self.left_s,
            kind=kind,
            description=description,
            seconds=seconds,
            failures=tuple(failures),
            done=self._done,
            total=self._total,
        )
        self._finish(event)
        self.report(event, logging.WARNING if event.failures else logging.INFO)

    @_hide_on_error
    def _finish(self, event: StepEvent) -> None:
        self._display.finish(event)

    def report(self, event: Event, level: int = logging.INFO) -> None:
        """Log an event, and pass it to the listener."""
        _log(level, event)
        if self._listener is not None:
            self._listener(event)

    def skip(self, kinds: Iterable[str]) -> None:
        """Remove expected steps, one for each kind, that were finished or turned out not to be needed."""
        self._remaining -= Counter(kinds)
        self._count()

    def set_timing_left(self, left_s: float) -> None:
        """Set the seconds that remain to be spent on time measurements."""
        self._timed_s = left_s
        self._count()

    @_hide_on_error
    def write_line(self, line: str) -> None:
        """Show a line that stays, and log it."""
        _log(logging.INFO, line)
        self._display.write(line)

    @_hide_on_error
    def _count(self) -> None:
        left = f"about {format_duration(self.left_s)} left" if self.left_s >= 1 else ""
        self._display.count(self._done, self._total, left)


def format_duration(seconds: float) -> str:
    """Return seconds as text: `45 s`, `2 min 10 s`, `1 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
