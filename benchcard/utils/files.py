"""Files on disk: listing and digest of content, atomic writes, and disk errors as messages."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchcard.errors import BenchcardError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# Errors that mean that a path cannot be written, for another reason.
_NOT_WRITABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOENT,
    errno.ENAMETOOLONG,
)


def list_files(path: Path) -> dict[str, Path]:
    """Return the files of a local model, data set or script, by their path relative to its folder.

    A file is returned alone. In a folder, links to folders are followed; hidden files, `__pycache__` and READMEs are
    left out.
    """
    if path.is_file():
        return {path.name: path}
    files: dict[str, Path] = {}
    for parent, folders, names in os.walk(path, followlinks=True):
        folder = Path(parent)
        visible = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        folders[:] = [name for name in visible if not _links_to_parent(folder / name)]
        for name in names:
            if not name.startswith(".") and name.lower() != "readme.md" and (folder / name).is_file():
                files[(folder / name).relative_to(path).as_posix()] = folder / name
    return {name: files[name] for name in sorted(files, key=lambda name: Path(name).parts)}


def _links_to_parent(folder: Path) -> bool:
    """Return whether following a folder would not end, since it is a link to one of its own parents."""
    return folder.is_symlink() and folder.resolve() in {parent.resolve() for parent in folder.parents}


def pointer_hint(file: Path) -> str:
    """Return what to do about a file that is a Git LFS pointer; empty for any other file, and where there is no file.

    Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
    """
    # A pointer is shorter than 1024 bytes.
    is_short = file.is_file() and file.stat().st_size < 1024
    if not is_short or not file.read_bytes().startswith(b"version https://git-lfs.github.com/spec/"):
        return ""
    return f"{file.name} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder"


def content_digest(path: Path) -> str:
    """Return the SHA-256 of the names and contents of all files of a path (see `list_files`)."""
    content = hashlib.sha256()
    for name, file in list_files(path).items():
        content.update(os.fsencode(name) + f"\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                content.update(chunk)
    return content.hexdigest()


def write_atomically(path: Path, value: object) -> None:
    """Write plain data as JSON, as `write_bytes_atomically` does; a disk error becomes a `BenchcardError`."""
    content = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    with reporting_disk_errors(path.parent):
        write_bytes_atomically(path, content.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it holds either the new content or the old one, and keeps its permissions.

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
    """Yield an empty draft folder, which replaces `folder` at the end of the block unless the block raises."""
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
def reporting_disk_errors(path: Path, advice: str = "give another folder") -> Iterator[None]:
    """Turn the disk errors of a block that writes `path` into a `BenchcardError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            message = f"no space left on the disk of {path}: make room and run the same command again"
            raise BenchcardError(f"{message}; finished steps are kept") from error
        if error.errno in _NOT_WRITABLE:
            raise BenchcardError(f"{path} cannot be written ({error.strerror}): {advice}") from error
        raise


def sync(folder: Path) -> None:
    """Flush the entries of a folder to the disk, so that they survive a power failure; POSIX only."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
