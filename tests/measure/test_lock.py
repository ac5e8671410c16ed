"""One timing at a time on a machine."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import timing_fixtures
from filelock import FileLock

from benchcard.errors import MachineError
from benchcard.measure.lock import machine_lock
from benchcard.run.directory import RunDirectory

folder = timing_fixtures.folder


def test_two_runs_never_time_at_once(folder: Path) -> None:
    """The second taker of the machine's lock says that it waits, and gets it when the first is done."""
    said: list[str] = []
    waits, got = threading.Event(), threading.Event()

    def second() -> None:
        with machine_lock(lambda text: (said.append(text), waits.set())):
            got.set()

    with machine_lock():
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(20)
        assert not got.is_set()
    assert got.wait(20)
    thread.join()
    assert str(folder) in said[0]


def test_a_lock_that_cannot_be_made_is_an_error_of_the_machine(folder: Path) -> None:
    """Where the lock's folder is a file, the message names it."""
    (folder / "benchcard-locks").write_text("")
    with pytest.raises(MachineError, match="benchcard"), machine_lock():
        pass


def test_nothing_is_left_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt that comes just when the lock was taken, or while it is held, gives it back, whoever still looks at
    the exception.
    """
    kept: list[BaseException] = []
    take = FileLock.acquire

    def interrupted(self: FileLock, *given: object, **named: object) -> None:
        take(self, *given, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FileLock, "acquire", interrupted)
        for manager in (machine_lock(), RunDirectory(folder / "run").locked()):
            with pytest.raises(KeyboardInterrupt) as error, manager:
                pass
            kept.append(error.value)
    with machine_lock(lambda text: pytest.fail(text)), RunDirectory(folder / "run").locked():
        pass
    assert len(kept) == 2
