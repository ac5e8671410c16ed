"""What a push holds, and what the Hub holds: files with the ids under which git and LFS know them.

Owns telling the same content from another without downloading it, and the account of what a push changes. Asks no
network and writes nothing; `hub` does.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchcard.errors import HubError

README: Final = "README.md"
_PIECE: Final = 1 << 20


@dataclass(frozen=True)
class Upload:
    """A file to be pushed: where it goes, what it is, and the ids under which git and LFS would know it."""

    path: str
    source: bytes | Path
    size: int
    blob_id: str
    sha256: str


@dataclass(frozen=True)
class Remote:
    """What the Hub holds at one moment.

    Attributes:
        repo_id: what the repository is called now.
        sha: the newest commit.
        readme: the README of that commit; None where it has none.
        blob_ids: git's id of each file, by its path.
        lfs_ids: SHA-256 of each file that is in LFS, by its path.
    """

    repo_id: str
    sha: str
    readme: bytes | None
    blob_ids: Mapping[str, str]
    lfs_ids: Mapping[str, str]

    @property
    def paths(self) -> frozenset[str]:
        """The paths of all files."""
        return frozenset((*self.blob_ids, *self.lfs_ids))

    def has(self, upload: Upload) -> bool:
        """Whether this very content stands there under this path."""
        if upload.path in self.lfs_ids:
            return self.lfs_ids[upload.path] == upload.sha256
        return self.blob_ids.get(upload.path) == upload.blob_id


@dataclass(frozen=True)
class Pushed:
    """What a push came to.

    Attributes:
        commit_oid: the commit that holds what was pushed; None in a dry run.
        commit_url: its address; None in a dry run.
        pr_url: the pull request that holds it; None where it stands on the branch itself.
        pr_revision: where the commits of that pull request are, as `refs/pr/3`.
        changed: whether this push changed the Hub; in a dry run, whether it would.
        warnings: what the Hub found odd about the card, and what else its owner should know.
        diff: what changed: a unified diff of the README, then one line for each other file.
        kept_out: the paths of what was to be pushed that a `.gitignore` there keeps out.
    """

    commit_oid: str | None
    commit_url: str | None
    pr_url: str | None
    pr_revision: str | None
    changed: bool
    warnings: tuple[str, ...]
    diff: str
    kept_out: tuple[str, ...] = ()


def upload_of(path: str, source: bytes | Path) -> Upload:
    """A file with its ids; one on disk is read in pieces of 1 MB.

    Raises:
        HubError: the path may not stand in a repository, or the file cannot be read.
    """
    if "\\" in path or any(part in ("", ".", "..", ".git") for part in path.split("/")):
        raise HubError(f"{path!r} is not a path that may stand in a repository.")
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            sha256 = hashlib.sha256()
            # Not for security: it is how git names a file.
            blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            while piece := file.read(_PIECE):
                sha256.update(piece)
                blob.update(piece)
    except OSError as error:
        raise HubError(f"{path} cannot be pushed: {error}") from error
    return Upload(path, source, size, blob.hexdigest(), sha256.hexdigest())


def text_of(readme: bytes | None, repo_id: str) -> str | None:
    """The text of a README, to the byte: a byte order mark and the line ends stay; None where there is none.

    Raises:
        HubError: it is not UTF-8; nobody could tell what would become of it.
    """
    try:
        return None if readme is None else readme.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HubError(
            f"{README} of {repo_id} is not UTF-8 (byte {error.start}) and is left as it is: convert it and push again."
        ) from None


def card_upload(text: str) -> Upload:
    """The README to be pushed.

    Raises:
        HubError: it holds what UTF-8 cannot write.
    """
    try:
        return upload_of(README, text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise HubError(f"The card cannot be written as UTF-8 (character {error.start}): nothing was pushed.") from None


def difference(remote: Remote | None, uploads: Sequence[Upload]) -> str:
    """A unified diff of the README, then a line for each other file that is new or changed; empty where nothing is."""
    before = remote.readme if remote is not None else None
    after = next((upload.source for upload in uploads if upload.path == README), before)
    old_name = f"a/{README}" if before is not None else "/dev/null"
    # Lines end in \n alone: splitlines would also break at all else that Unicode calls a line end.
    texts = [one.decode("utf-8", "replace") if isinstance(one, bytes) else "" for one in (before, after)]
    old, new = (list(io.StringIO(text, newline="\n")) for text in texts)
    lines = [
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in difflib.unified_diff(old, new, old_name, f"b/{README}")
    ]
    for upload in uploads:
        if upload.path != README and (remote is None or not remote.has(upload)):
            known = remote is not None and (upload.path in remote.blob_ids or upload.path in remote.lfs_ids)
            lines.append(f"{'changed' if known else 'new'} file: {upload.path} ({upload.size:,} bytes)\n")
    return "".join(lines)
