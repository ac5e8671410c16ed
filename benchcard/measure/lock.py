"""One timing at a time on a machine, whoever starts it.

Owns the lock that every timing holds, and the words for whoever has to wait. Leaves to `timing` when it is held.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from benchcard.errors import MachineError

_LOG = logging.getLogger(__name__)
# A process that waits must not disturb the one that times.
_POLL_S = 1.0


@contextmanager
def machine_lock(say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Nothing else of benchcard is timed on this machine while this is held; waits for as long as it takes.

    The lock is the system's own (flock or its like), so it ends with the process that holds it, however that ends.

    Args:
        say: told once, in words, when there is something to wait for.

    Raises:
        MachineError: the lock's file cannot be made or opened.
    """
    path = _lock_path()
    lock = FileLock(path, mode=0o666)
    try:
        _take(lock, path, say)
        yield
    finally:
        # Also where an interrupt came between taking it and knowing of it.
        lock.release(force=True)


def _take(lock: BaseFileLock, path: Path, say: Callable[[str], None] | None) -> None:
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            text = f"waiting for another run that is timing on this machine (lock {path})"
            _LOG.warning(text)
            if say is not None:
                say(text)
            lock.acquire(poll_interval=_POLL_S)
    except OSError as error:
        raise MachineError(f"the lock {path} cannot be taken: {error}; remove it, or set TMPDIR") from error


def _lock_path() -> Path:
    """The lock's place, the same for every user of the machine's temporary folder.

    In a folder of its own without the sticky bit, because Linux (fs.protected_regular) refuses to open files of other
    users in a sticky one; and not of the package's name, which a script beside it would import. Its mode is only set by
    whoever made it: the folder of somebody else is not ours to open up.
    """
    folder = Path(tempfile.gettempdir()) / "benchcard-locks"
    try:
        folder.mkdir()
        folder.chmod(0o777)
    except FileExistsError:
        pass
    except OSError as error:
        raise MachineError(f"the folder {folder} of the timing lock cannot be made: {error}; set TMPDIR") from error
    return folder / "timing.lock"
