"""The files of a push and the files of a repository, with the ids that git and LFS give them.

Owns the comparison of contents without a download, and the diff of a push. Makes no request.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchcard.errors import HubError

README: Final = "README.md"


@dataclass(frozen=True)
class Upload:
    """A file to push: its content, or a file on this machine, with the ids that git and LFS (`sha256`) give it."""

    path: str
    source: bytes | Path
    size: int
    blob_id: str
    sha256: str


@dataclass(frozen=True)
class Snapshot:
    """A repository at its newest commit. `blob_ids` has git's id of every file, `lfs_ids` the SHA-256 of LFS files."""

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
        """Return whether the repository has the same content under the same path."""
        if upload.path in self.lfs_ids:
            return self.lfs_ids[upload.path] == upload.sha256
        return self.blob_ids.get(upload.path) == upload.blob_id


@dataclass(frozen=True, repr=False)
class Pushed:
    """The result of a push. Its text, also in a notebook, is a summary of five lines at most.

    Attributes:
        commit_oid: The commit that contains the push; None in a dry run.
        commit_url: The address of the commit; None in a dry run.
        pr_url: The pull request that contains the push; None where it is on the branch itself.
        pr_revision: The git reference of that pull request, such as `refs/pr/3`.
        changed: Whether this push changed the repository; in a dry run, whether it would.
        warnings: Warnings of the Hub about the card, and of benchcard about the repository.
        diff: A unified diff of the README, then one line for each other file that changed.
        kept_out: Paths of files that were not pushed because the repository's `.gitignore` excludes them.
    """

    commit_oid: str | None
    commit_url: str | None
    pr_url: str | None
    pr_revision: str | None
    changed: bool
    warnings: tuple[str, ...]
    diff: str
    kept_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        starts = Counter(re.findall(r"^(?:[+-]|(?:new|changed|removed) file: )", self.diff, re.MULTILINE))
        lines = []
        if starts["+"]:
            # One line of each kind names the file.
            lines.append(f"{README}: {starts['+'] - 1} lines added, {starts['-'] - 1} removed")
        counts = {word: starts[f"{word} file: "] for word in ("new", "changed", "removed")}
        if others := [f"{count} {word}" for word, count in counts.items() if count]:
            lines.append(f"other files: {', '.join(others)}")
        if self.warnings:
            lines.append(f"note: {' '.join('; '.join(self.warnings).split())}")
        if self.changed:
            commit = self.commit_url or self.commit_oid
            lines.append(f"commit: {commit}" if commit else "nothing was written: this was a dry run")
        elif self.kept_out:
            ignored = ", ".join(self.kept_out)
            lines.append(f"nothing to push: the repository's .gitignore excludes {ignored}, and the rest is up to date")
        else:
            holder = "pull request" if self.pr_url else "repository"
            lines.append(f"nothing to push: the {holder} has these results already")
        if self.pr_url:
            lines.append(f"pull request: {self.pr_url}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def make_upload(path: str, source: bytes | Path) -> Upload:
    """Return a file with its size and ids; a file on disk is read in chunks of 1 MB."""
    if "\\" in path or any(part in ("", ".", "..", ".git") for part in path.split("/")):
        raise HubError(f"{path!r} is not a valid path in a repository.")
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            sha256 = hashlib.sha256()
            # Not for security: SHA-1 is git's id of a file.
            blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            while chunk := file.read(1 << 20):
                sha256.update(chunk)
                blob.update(chunk)
    except OSError as error:
        raise HubError(f"{path} cannot be pushed: {error}") from error
    return Upload(path, source, size, blob.hexdigest(), sha256.hexdigest())


def decode_readme(readme: bytes | None, repo_id: str) -> str | None:
    """Return the text of a README with its byte order mark and line ends; None where there is none."""
    try:
        return None if readme is None else readme.decode("utf-8")
    except UnicodeDecodeError as error:
        # Merging a card into it would damage the text.
        place = f"{README} of {repo_id} is not UTF-8 (byte {error.start})"
        raise HubError(f"{place} and stays unchanged: convert it and push again.") from None


def encode_readme(text: str) -> Upload:
    """Return the README to push."""
    try:
        return make_upload(README, text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise HubError(f"The card cannot be encoded as UTF-8 (character {error.start}). Nothing was pushed.") from None


def describe_changes(snapshot: Snapshot | None, uploads: Sequence[Upload], removed: Sequence[str] = ()) -> str:
    """Return a unified diff of the README, and a line for each other file that is new, changed or removed."""
    before = snapshot.readme if snapshot is not None else None
    after = next((upload.source for upload in uploads if upload.path == README), before)
    old_name = f"a/{README}" if before is not None else "/dev/null"
    # Lines end in \n alone. `str.splitlines` would also split at other line ends of Unicode.
    texts = [content.decode("utf-8", "replace") if isinstance(content, bytes) else "" for content in (before, after)]
    old, new = (list(io.StringIO(text, newline="\n")) for text in texts)
    lines = [
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in difflib.unified_diff(old, new, old_name, f"b/{README}")
    ]
    for upload in uploads:
        if upload.path != README and (snapshot is None or not snapshot.has(upload)):
            is_known = snapshot is not None and upload.path in snapshot.paths
            lines.append(f"{'changed' if is_known else 'new'} file: {upload.path} ({upload.size:,} bytes)\n")
    lines += [f"removed file: {path}\n" for path in removed]
    return "".join(lines)
