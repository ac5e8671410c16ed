"""Progress is shown where possible, and never stops a run."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import itertools
import logging
import sys
import threading
import types
from collections.abc import Callable

import pytest
from hub_fixtures import CARD, MINE

from benchcard.hub.repository import read_readme
from benchcard.testing import LocalHub
from benchcard.utils.events import Event, StepEvent
from benchcard.utils.progress import Progress, format_duration
from benchcard.utils.values import Failure

DIED = Failure(message="died")


class Stream(io.StringIO):
    """A standard error that fails after some writes, as a pipe without a reader."""

    def __init__(self, writes: int, error: Exception, terminal: bool) -> None:
        super().__init__()
        self._left, self._error, self._terminal = writes, error, terminal

    def isatty(self) -> bool:
        """Return whether bars are drawn on it."""
        return self._terminal

    def write(self, text: str) -> int:
        """Write until the limit, and then fail."""
        if self._left <= 0:
            raise self._error
        self._left -= 1
        return super().write(text)


def closed() -> io.StringIO:
    """Return a closed stream."""
    stream = io.StringIO()
    stream.close()
    return stream


def at_work() -> None:
    """Show everything that a run shows, including a lone surrogate."""
    with Progress(["export", "quantize", "score"], 3.0) as progress:
        progress.start("export")
        progress.update(1, 2)
        progress.finish("export", "export opset 17", 1.0)
        progress.finish("quantize", "quantize \u2192 \ud800", 1.0, [DIED])
        progress.skip(["score"])
        progress.set_timing_left(1.0)
        progress.write_line("a line")


@pytest.mark.parametrize(
    "stream",
    [
        None,
        closed(),
        *(
            Stream(writes, error, terminal)
            for writes in (0, 1, 3)
            for error in (
                BrokenPipeError(),
                OSError(5, "Input/output error"),
                ValueError("I/O operation on closed file"),
            )
            for terminal in (True, False)
        ),
    ],
)
def test_where_nothing_can_be_shown_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stream: io.StringIO | None
) -> None:
    """Without a standard error, or with one that fails, nothing is raised and nothing is shown elsewhere."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        at_work()
    assert capsys.readouterr().out == ""


def test_what_an_encoding_lacks_is_shown_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strict ASCII stream gets every line, with escapes for other characters."""
    written = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", io.TextIOWrapper(written, encoding="ascii", errors="strict"))
        at_work()
        lines = written.getvalue().decode("ascii").splitlines()
    assert lines[1].startswith(r"quantize \u2192 \ud800: failed: died")
    assert lines[-1] == "a line"


@pytest.mark.parametrize("stream", [None, closed(), Stream(0, BrokenPipeError(), False)])
def test_a_download_needs_no_standard_error(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None) -> None:
    """A download draws its bars on a terminal only; elsewhere they would raise."""
    with LocalHub() as hub:
        hub.add_model(MINE, {"README.md": CARD})
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            text = read_readme(MINE, endpoint=hub.endpoint, token=hub.token)
    assert text == CARD


class Notebook:
    """A kernel without ipywidgets: the text of its only output after each change, and when it changed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.changes: list[tuple[float, str]] = []
        self.outputs = 0
        self.timers: list[tuple[float, Callable[[], object]]] = []
        display = types.ModuleType("IPython.display")
        display.DisplayHandle = lambda: self  # type: ignore[attr-defined] # a module of the test
        find = importlib.util.find_spec
        monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
        monkeypatch.setitem(sys.modules, "IPython.display", display)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ipywidgets" else find(name))
        monkeypatch.setattr(threading, "Timer", self._timer)

    def _timer(self, wait_s: float, function: Callable[[], object]) -> Notebook:
        self.timers.append((wait_s, function))
        return self

    def start(self) -> None:
        """Start a timer, as `threading.Timer` does."""

    def cancel(self) -> None:
        """Cancel a timer, as `threading.Timer` does."""

    def clock(self) -> float:
        """Return the seconds that the test has set."""
        return self.now_s

    def display(self, data: dict[str, str], raw: bool) -> None:
        """Make an output, as `DisplayHandle` does."""
        assert raw
        self.outputs += 1
        self.changes.append((self.now_s, data["text/plain"]))

    def update(self, data: dict[str, str], raw: bool) -> None:
        """Change the output, as `DisplayHandle` does."""
        assert raw
        self.changes.append((self.now_s, data["text/plain"]))


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    """A notebook without ipywidgets, whose clock the test sets."""
    return Notebook(monkeypatch)


def test_a_notebook_without_widgets_keeps_one_output(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    """A hundred steps in as many seconds are one output, changed at most once a second, and complete at the end."""
    with Progress(["evaluate"] * 100, 0.0, clock=notebook.clock) as progress:
        for number in range(100):
            progress.start(f"evaluate row {number}")
            for done in range(16):
                notebook.now_s += 1 / 16
                progress.update(done, 16)
            progress.finish("evaluate", f"evaluate row {number}", 1.0, [DIED] if number == 7 else [])
    assert notebook.outputs == 1
    times = [time for time, _ in notebook.changes]
    assert len(times) == 102
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(times[:-1]))
    assert "50 of 100 steps, about 50 s left: evaluate row 50" in notebook.changes[51][1]
    assert notebook.changes[-1][1] == "evaluate row 7: failed: died\n100 of 100 steps"
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_long_step_is_shown_in_time(notebook: Notebook) -> None:
    """A step without progress of its own that begins just after a change is shown once a second has passed."""
    with Progress(["prepare", "export"], 0.0, clock=notebook.clock) as progress:
        progress.start("prepare")
        progress.start("export")
        assert "export" not in notebook.changes[-1][1]
        ((wait_s, function),) = notebook.timers
        notebook.now_s += wait_s
        function()
        assert notebook.changes[-1] == (1.0, "0 of 2 steps, about 4 s left: export")


def test_widgets_draw_the_bars_of_a_notebook(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ipywidgets a notebook gets the bars of tqdm, which are widgets there."""
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: importlib.machinery.ModuleSpec(name, loader=None, origin="here")
    )
    bars: list[str] = []

    class Bar:
        def __init__(self, **options: object) -> None:
            bars.append(str(options.get("desc")))

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *args, **kwargs: None

    module = types.ModuleType("tqdm.auto")
    module.tqdm = Bar  # type: ignore[attr-defined] # a module of the test
    monkeypatch.setitem(sys.modules, "tqdm.auto", module)
    with Progress(["export"], 0.0) as progress:
        progress.start("export")
    assert bars == ["steps", "None"]
    assert notebook.changes == []


def test_a_listener_gets_events_and_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A function gets an event for each step, with what is done and left; its own errors are not hidden."""
    events: list[Event] = []
    with Progress(["export", "quantize", "score"], 3.0, events.append, step_s={"score": 1.0}) as progress:
        progress.start("export")
        progress.finish("export", "export opset 17", 8.0)
        progress.finish("quantize", "quantize dynamic", 1.0, [Failure("quantize", "ArtifactError", "no MatMul")])
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    first, second = events
    assert isinstance(first, StepEvent)
    assert (first.kind, first.seconds, first.failures, first.done, first.total) == ("export", 8.0, (), 1, 4)
    assert first.left_s == 2.0 + 1.0 + 3.0
    assert str(first) == "export opset 17: 8.0 s"
    assert isinstance(second, StepEvent)
    assert second.failures[0].type == "ArtifactError"
    assert str(second) == "quantize dynamic: failed: quantize: ArtifactError: no MatMul"

    def refuse(event: Event) -> None:
        raise OSError(str(event))

    with Progress(["export"], 0.0, refuse) as progress, pytest.raises(OSError, match=r"export: 1\.0 s"):
        progress.finish("export", "export", 1.0)


def test_events_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The logger `benchcard` gets each step, failures as warnings, and prints nothing by itself."""
    caplog.set_level(logging.INFO, logger="benchcard")
    with Progress(["export", "quantize"], 0.0, listener=False) as progress:
        progress.finish("export", "export", 1.0)
        progress.finish("quantize", "quantize", 1.0, [DIED])
        progress.write_line("a line \ud800")
    assert caplog.record_tuples == [
        ("benchcard", logging.INFO, "export: 1.0 s"),
        ("benchcard", logging.WARNING, "quantize: failed: died"),
        ("benchcard", logging.INFO, r"a line \ud800"),
    ]
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("benchcard").handlers)


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (130, "2 min 10 s"), (3900, "1 h 5 min")])
def test_seconds_as_text(seconds: float, text: str) -> None:
    """The two largest of hours, minutes and seconds are shown."""
    assert format_duration(seconds) == text
