"""Files written completely or not at all, disk errors as messages, and digests of content."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchcard.errors import BenchcardError


def files_of(path: Path) -> dict[str, Path]:
    """Return the files that a local name stands for, by their path in the folder: the file itself, or all files in the
    folder, also behind links to folders, but for hidden ones, `__pycache__` and READMEs.
    """
    if path.is_file():
        return {path.name: path}
    files: dict[str, Path] = {}
    for folder, folders, names in os.walk(path, followlinks=True):
        here = Path(folder)
        folders[:] = [
            name for name in folders if not name.startswith(".") and name != "__pycache__" and not _returns(here / name)
        ]
        for name in names:
            if not name.startswith(".") and name.lower() != "readme.md" and (here / name).is_file():
                files[(here / name).relative_to(path).as_posix()] = here / name
    return {name: files[name] for name in sorted(files, key=lambda name: Path(name).parts)}


def _returns(folder: Path) -> bool:
    """Return whether a folder is a link to one that it lies in, so that a walk through it would not end."""
    return folder.is_symlink() and folder.resolve() in {parent.resolve() for parent in folder.parents}


def pointer_hint(file: Path) -> str:
    """Return what to do about a file that is a Git LFS pointer; empty for any other file, or none.

    Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
    """
    # A pointer is shorter than 1024 bytes.
    if not file.is_file() or file.stat().st_size >= 1024:
        return ""
    if not file.read_bytes().startswith(b"version https://git-lfs.github.com/spec/"):
        return ""
    return f"{file.name} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder"


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of all files in a folder (see `files_of`)."""
    whole = hashlib.sha256()
    for name, file in files_of(path).items():
        whole.update(os.fsencode(name) + f"\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            for piece in iter(lambda: stream.read(1 << 22), b""):
                whole.update(piece)
    return whole.hexdigest()


# What a system says of a path that cannot be written for other reasons than a full disk.
_REFUSALS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOENT,
    errno.ENAMETOOLONG,
)


def write_atomically(path: Path, value: Any) -> None:
    """Write plain data as JSON under its final name, or leave what was there."""
    part = path.with_name(f".{path.name}.part")
    with reporting_disk_errors(path.parent), part.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it holds either the new content or the old one. It keeps its permissions.

    Raises:
        OSError: The file cannot be written; nothing is left beside it.
    """
    draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            draft.chmod(path.stat().st_mode & 0o7777)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty draft folder, which replaces `folder` at the end of the block unless the block raises.

    Raises:
        BenchcardError: The disk is full, or the folder cannot be written.
    """
    draft = folder.with_name(f".{folder.name}.{os.urandom(4).hex()}")
    try:
        with reporting_disk_errors(folder.parent):
            draft.mkdir(parents=True)
            yield draft
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def reporting_disk_errors(path: Path, way_out: str = "give another folder") -> Iterator[None]:
    """A block in which the disk's refusals become errors that say what to do.

    Args:
        path: What is written.
        way_out: What to do where it cannot be.

    Raises:
        BenchcardError: The disk is full, or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BenchcardError(
                f"no space left on the disk of {path}: "
                "make room and give the same command again; finished steps are kept"
            ) from error
        if error.errno in _REFUSALS:
            raise BenchcardError(f"{path} cannot be written ({error.strerror}): {way_out}") from error
        raise


def sync(folder: Path) -> None:
    """Make the names in a folder survive a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
