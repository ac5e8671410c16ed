"""The repositories of `LocalHub` in memory: files, commits, branches and discussions.

Ids of blobs, trees and commits are those that git computes. Leaves HTTP, tokens and rights to `api`. Not thread-safe by
itself: the server holds one lock around each request.

The clock is logical: it starts at a fixed time and advances by one second with every commit or discussion, so that the
same pushes give the same commit ids on every machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import count

# The Hub stores files outside git that match `.gitattributes`, are larger than 10 MB, or are binary.
# Source: https://huggingface.co/docs/hub/repositories-getting-started; the patterns are those of a new repository.
LFS_PATTERNS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx "
    "*.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz "
    "*.wasm *.xz *.zip *.zst *tfevents*"
)
_LFS_SIZE = 10_000_000
MAIN = "refs/heads/main"
_BINARY_SAMPLE = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


@dataclass(eq=False)
class Refusal(Exception):
    """The Hub refuses a request, with a status, an error code and a message."""

    status: int
    message: str
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def _git_id(kind: str, content: bytes) -> str:
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(content)) + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Blob:
    """One version of one file; if `lfs`, git has only a pointer to the content."""

    content: bytes
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        """The digest of the content, which is the id of the file in LFS."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """The text that git has for a file in LFS. Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
        size = len(self.content)
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {size}\n".encode()

    @cached_property
    def oid(self) -> str:
        """The git blob id: that of the pointer if the file is in LFS."""
        return _git_id("blob", self.pointer if self.lfs else self.content)

    @property
    def etag(self) -> str:
        """The LFS digest or the git blob id."""
        return self.sha256 if self.lfs else self.oid


Files = Mapping[str, Blob]


def tree_ids(files: Files) -> dict[str, str]:
    """Return the git tree id of every folder, by path; the root is the empty path.

    Source: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects (entries sorted as if folders ended in a slash).
    """
    entries: dict[str, tuple[bytes, str]] = {}
    folders: dict[str, dict[str, Blob]] = {}
    for path, blob in files.items():
        name, slash, rest = path.partition("/")
        if slash:
            folders.setdefault(name, {})[rest] = blob
        else:
            entries[name] = b"100644", blob.oid
    ids = {}
    for name, inner_files in folders.items():
        for path, oid in tree_ids(inner_files).items():
            ids[f"{name}/{path}" if path else name] = oid
        entries[f"{name}/"] = b"40000", ids[name]
    listing = b""
    for name, (mode, oid) in sorted(entries.items()):
        listing += mode + b" " + name.rstrip("/").encode() + b"\0" + bytes.fromhex(oid)
    return {**ids, "": _git_id("tree", listing)}


@dataclass(frozen=True)
class Commit:
    """One commit, with all files of the repository."""

    oid: str
    parent: str | None
    files: Files
    title: str
    description: str
    author: str
    date: datetime


@dataclass
class Discussion:
    """A discussion, or a pull request onto `target` if there is a `base`: the commit that it started from."""

    num: int
    title: str
    author: str
    created: datetime
    base: str | None = None
    target: str = MAIN
    status: str = "open"
    merged: str | None = None
    events: list[dict[str, object]] = field(default_factory=list)

    @property
    def ref(self) -> str:
        """The git reference of a pull request."""
        return f"refs/pr/{self.num}"

    @property
    def is_open(self) -> bool:
        """Whether it is neither closed nor merged."""
        return self.status in ("open", "draft")


def _changes(before: Files, after: Files) -> dict[str, Blob | None]:
    """Return the files that differ, by path; None for a deleted file."""
    return {path: after.get(path) for path in sorted({*before, *after}) if before.get(path) != after.get(path)}


def ticking_clock() -> Iterator[datetime]:
    """Yield times that are one second apart."""
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds) for seconds in count(1))


@dataclass
class Repo:
    """One repository: its commits, branches and discussions, and the files in LFS."""

    repo_id: str
    repo_type: str
    clock: Iterator[datetime]
    created: datetime
    private: bool = False
    discussions_enabled: bool = True
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    discussions: list[Discussion] = field(default_factory=list)
    lfs: dict[str, bytes] = field(default_factory=dict)
    lfs_paths: set[str] = field(default_factory=set)

    @property
    def owner(self) -> str:
        """The namespace of the repository; empty for an old name without one."""
        return self.repo_id.rpartition("/")[0]

    def ref_of(self, revision: str) -> str | None:
        """Return the reference of a branch, a tag or a pull request; None where there is none."""
        candidates = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((ref for ref in candidates if ref in self.refs), None)

    def at(self, revision: str) -> Commit:
        """Return the commit of a branch, a tag, `refs/pr/N` or a commit id (5 to 40 digits)."""
        ref = self.ref_of(revision)
        if ref is not None:
            return self.commits[self.refs[ref]]
        if re.fullmatch(r"[0-9a-f]{5,40}", revision):
            commits = [commit for oid, commit in self.commits.items() if oid.startswith(revision)]
            if len(commits) == 1:
                return commits[0]
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def history(self, commit: Commit) -> Iterator[Commit]:
        """Yield a commit and its ancestors, newest first."""
        current: Commit | None = commit
        while current is not None:
            yield current
            current = self.commits[current.parent] if current.parent else None

    def last_change(self, commit: Commit, path: str) -> Commit:
        """Return the newest commit, up to `commit`, that changed the file `path` or the folder `path/`."""
        for younger in self.history(commit):
            older = self.commits[younger.parent].files if younger.parent else {}
            changed = _changes(older, younger.files)
            if any(name == path or (path.endswith("/") and name.startswith(path)) for name in changed):
                return younger
        return commit

    def commit(self, ref: str, files: Files, *, author: str, title: str, description: str = "") -> Commit:
        """Add a commit with `files` to a branch, and return it."""
        date, parent = next(self.clock), self.refs.get(ref)
        signature = f"{author} <{author}@users.noreply.localhost> {int(date.timestamp())} +0000"
        text = f"{title}\n\n{description}\n" if description else f"{title}\n"
        lines = [f"tree {tree_ids(files)['']}", *([f"parent {parent}"] if parent else []), f"author {signature}"]
        oid = _git_id("commit", "\n".join([*lines, f"committer {signature}", "", text]).encode())
        commit = Commit(oid, parent, dict(files), title, description, author, date)
        self.commits[oid] = commit
        self.refs[ref] = oid
        self.lfs.update({blob.sha256: blob.content for blob in files.values() if blob.lfs})
        return commit

    def goes_to_lfs(self, path: str, sample: bytes, size: int) -> bool:
        """Return whether the Hub stores a file in LFS."""
        if path in self.lfs_paths:
            return True
        if size == 0 or path in ("README.md", ".gitattributes"):
            return False
        name = path.rsplit("/", 1)[-1]
        by_name = any(fnmatchcase(path if "/" in pattern else name, pattern) for pattern in LFS_PATTERNS.split())
        return by_name or size > _LFS_SIZE or _BINARY_SAMPLE.search(sample) is not None

    def open_discussion(self, title: str, author: str, *, base: str | None = None, target: str = MAIN) -> Discussion:
        """Add a discussion, and return it; with `base`, a pull request onto `target` that starts from that commit."""
        if not self.discussions_enabled:
            raise Refusal(403, "Discussions are disabled for this repo")
        discussion = Discussion(len(self.discussions) + 1, title, author, next(self.clock), base, target)
        self.discussions.append(discussion)
        if base is not None:
            self.refs[discussion.ref] = base
        return discussion

    def changes(self, pull: Discussion) -> dict[str, Blob | None]:
        """Return the files that a pull request changes, by path; None for a deleted file."""
        if pull.base is None:
            raise Refusal(400, "This is not a pull request")
        return _changes(self.commits[pull.base].files, self.at(pull.ref).files)

    def conflicts(self, pull: Discussion) -> list[str]:
        """Return the paths that a pull request and its target have changed in different ways."""
        changes = self.changes(pull)
        before, after = self.commits[pull.base or ""].files, self.at(pull.target).files
        return [path for path, blob in changes.items() if after.get(path) not in (before.get(path), blob)]

    def merge(self, pull: Discussion, author: str) -> Commit:
        """Squash a pull request onto its target, and return the commit."""
        if not pull.is_open:
            raise Refusal(400, f"This pull request is {pull.status}")
        changes, conflicts = self.changes(pull), self.conflicts(pull)
        if conflicts:
            raise Refusal(409, f"This pull request conflicts in {', '.join(conflicts)}")
        files = {path: blob for path, blob in {**self.at(pull.target).files, **changes}.items() if blob is not None}
        commit = self.commit(pull.target, files, author=author, title=f"{pull.title} (#{pull.num})")
        pull.status, pull.merged = "merged", commit.oid
        return commit
