"""The lock that allows one timing at a time on a machine, for all users.

Owns the lock and the message for whoever waits. Leaves to `conductor` when it is held.
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
def machine_lock(report: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the timing lock of this machine; wait for it as long as necessary.

    The operating system releases the lock (flock or its like) when the process ends, however it ends.

    Args:
        report: Called once with a message if there is something to wait for.

    Raises:
        MachineError: The file of the lock cannot be created or opened.
    """
    path = _lock_path()
    lock = FileLock(path, mode=0o666)
    try:
        try:
            _acquire(lock, f"waiting for another run that is timing on this machine (lock {path})", report)
        except OSError as error:
            raise MachineError(
                f"the lock {path} cannot be acquired: {error}. Remove the file, or set TMPDIR to another folder"
            ) from error
        yield
    finally:
        # Also where an interrupt arrived between acquiring the lock and knowing of it.
        lock.release(force=True)


def _acquire(lock: BaseFileLock, message: str, report: Callable[[str], None] | None) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _LOG.warning(message)
        if report is not None:
            report(message)
        lock.acquire(poll_interval=_POLL_S)


def _lock_path() -> Path:
    """Return the file of the lock, the same for every user of the temporary folder.

    It is in a folder without the sticky bit, because Linux (fs.protected_regular) refuses to open files of other users
    in a sticky one. The folder does not have the package's name, because a script beside it would import it. Only the
    user who created the folder may set its mode.
    """
    folder = Path(tempfile.gettempdir()) / "benchcard-locks"
    try:
        folder.mkdir()
        folder.chmod(0o777)
    except FileExistsError:
        pass
    except OSError as error:
        raise MachineError(
            f"the folder {folder} for the timing lock cannot be created: {error}. Set TMPDIR to another folder"
        ) from error
    return folder / "timing.lock"
