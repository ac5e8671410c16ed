"""Progress is shown where possible, and never stops a run."""

from __future__ import annotations

import io
import sys

import pytest
from hub_fixtures import CARD, MINE

from benchcard.hub.repository import read_readme
from benchcard.testing import LocalHub
from benchcard.utils.progress import Progress, format_duration


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
        progress.finish("quantize", "quantize \u2192 \ud800", 1.0, "died")
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


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (130, "2 min 10 s"), (3900, "1 h 5 min")])
def test_seconds_as_text(seconds: float, text: str) -> None:
    """The two largest of hours, minutes and seconds are shown."""
    assert format_duration(seconds) == text
