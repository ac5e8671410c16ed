"""What `LocalHub` keeps: repositories with their files, commits, branches and discussions, in memory.

Owns the git side of the local Hub: blob, tree and commit ids are those that git itself computes, so that a file that
did not change keeps its id and every commit has its own. Knows nothing of HTTP, tokens or users' rights: those are
`hub_api`'s. Not thread-safe by itself: whoever serves it holds one lock around each request.

The clock is logical: it starts at a fixed moment and moves on by one second with every commit or discussion, so that
the same pushes give the same commit ids on every machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

# The files that the Hub stores outside git: those named in `.gitattributes`, those over 10 MB, and binary ones.
# Source: https://huggingface.co/docs/hub/repositories-getting-started ; the list is that of a new model repository.
LFS_PATTERNS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx "
    "*.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz "
    "*.wasm *.xz *.zip *.zst *tfevents*"
)
LFS_SIZE = 10_000_000
MAIN = "refs/heads/main"
_BINARY_SAMPLE = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


class Refusal(Exception):
    """What the Hub answers instead of doing as asked: a status, an error code for machines, a message for people."""

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})


def _git_id(kind: str, content: bytes) -> str:
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(content)) + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Blob:
    """One version of one file.

    Attributes:
        content: the bytes that a download gives.
        lfs: whether git holds only a pointer to them.
    """

    content: bytes
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        """Digest of the content: the id of the file in LFS."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """The text that git holds for a file in LFS. Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
        size = len(self.content)
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {size}\n".encode()

    @cached_property
    def oid(self) -> str:
        """The git blob id: of the pointer where the file is in LFS."""
        return _git_id("blob", self.pointer if self.lfs else self.content)

    @property
    def etag(self) -> str:
        """What tells this content from another: the LFS digest or the git blob id."""
        return self.sha256 if self.lfs else self.oid


Files = Mapping[str, Blob]


def tree_ids(files: Files) -> dict[str, str]:
    """Git tree id of every folder in `files`, by its path; the root is the empty path.

    Source: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects (entries sorted as if folders ended in a slash).
    """
    folders: dict[str, dict[str, tuple[bytes, str | None]]] = {"": {}}
    for path, blob in files.items():
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folders.setdefault("/".join(parts[:depth]), {})
            folders["/".join(parts[: depth - 1])].setdefault(parts[depth - 1], (b"40000", None))
        folders["/".join(parts[:-1])][parts[-1]] = (b"100644", blob.oid)
    ids: dict[str, str] = {}
    for folder in sorted(folders, key=lambda path: (-path.count("/"), path == "", path)):
        entries = sorted(folders[folder].items(), key=lambda item: item[0] + ("/" if item[1][1] is None else ""))
        listing = b""
        for name, (mode, oid) in entries:
            child = oid if oid is not None else ids[f"{folder}/{name}" if folder else name]
            listing += mode + b" " + name.encode() + b"\0" + bytes.fromhex(child)
        ids[folder] = _git_id("tree", listing)
    return ids


@dataclass(frozen=True)
class Commit:
    """One commit: its id, what the repository held, and who said what when."""

    oid: str
    parent: str | None
    files: Files
    title: str
    description: str
    author: str
    date: datetime


@dataclass
class Discussion:
    """A discussion, or a pull request onto `target` when `base` names the commit that it started from."""

    num: int
    title: str
    author: str
    created: datetime
    base: str | None = None
    target: str = MAIN
    status: str = "open"
    merged: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ref(self) -> str:
        """Where the commits of a pull request go."""
        return f"refs/pr/{self.num}"


class Clock:
    """A clock that moves on by one second whenever it is read."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def tick(self) -> datetime:
        """The next second."""
        self._now += timedelta(seconds=1)
        return self._now


@dataclass
class Repo:
    """One repository: every commit it ever had, what its branches point to, its discussions and its rights."""

    repo_id: str
    repo_type: str
    clock: Clock
    private: bool = False
    discussions_enabled: bool = True
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    discussions: list[Discussion] = field(default_factory=list)
    lfs: dict[str, bytes] = field(default_factory=dict)
    lfs_paths: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.created = self.clock.tick()

    @property
    def owner(self) -> str:
        """The namespace that the repository is in; empty for one of the old names without any."""
        return self.repo_id.split("/")[0] if "/" in self.repo_id else ""

    def ref_of(self, revision: str) -> str | None:
        """The branch, tag or pull request that `revision` names, if it does."""
        candidates = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((ref for ref in candidates if ref in self.refs), None)

    def at(self, revision: str) -> Commit:
        """The commit that a branch, a tag, `refs/pr/N` or a commit id (5 to 40 digits) stands for.

        Raises:
            Refusal: 404 RevisionNotFound where there is none.
        """
        ref = self.ref_of(revision)
        if ref is not None:
            return self.commits[self.refs[ref]]
        if re.fullmatch(r"[0-9a-f]{5,40}", revision):
            found = [commit for oid, commit in self.commits.items() if oid.startswith(revision)]
            if len(found) == 1:
                return found[0]
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def history(self, commit: Commit) -> Iterator[Commit]:
        """`commit` and those before it, newest first."""
        current: Commit | None = commit
        while current is not None:
            yield current
            current = self.commits[current.parent] if current.parent else None

    def last_change(self, commit: Commit, path: str) -> Commit:
        """The newest commit, up to `commit`, that changed the file `path` or the folder `path/`."""
        for younger in self.history(commit):
            older = self.commits[younger.parent].files if younger.parent else {}
            touched = {name for name in {*older, *younger.files} if older.get(name) != younger.files.get(name)}
            if any(name == path or (path.endswith("/") and name.startswith(path)) for name in touched):
                return younger
        return commit

    def commit(self, ref: str, files: Files, *, author: str, title: str, description: str = "") -> Commit:
        """Puts a new commit with `files` on top of `ref` and gives it back."""
        date, parent = self.clock.tick(), self.refs.get(ref)
        who = f"{author} <{author}@users.noreply.localhost> {int(date.timestamp())} +0000"
        text = f"{title}\n\n{description}\n" if description else f"{title}\n"
        lines = [f"tree {tree_ids(files)['']}", *([f"parent {parent}"] if parent else []), f"author {who}"]
        oid = _git_id("commit", "\n".join([*lines, f"committer {who}", "", text]).encode())
        made = Commit(oid, parent, dict(files), title, description, author, date)
        self.commits[oid] = made
        self.refs[ref] = oid
        self.lfs.update({blob.sha256: blob.content for blob in files.values() if blob.lfs})
        return made

    def goes_to_lfs(self, path: str, sample: bytes, size: int) -> bool:
        """Whether the Hub would keep this file outside git."""
        if path in self.lfs_paths:
            return True
        if size == 0 or path in ("README.md", ".gitattributes"):
            return False
        name = path.rsplit("/", 1)[-1]
        by_name = any(fnmatchcase(path if "/" in pattern else name, pattern) for pattern in LFS_PATTERNS.split())
        return by_name or size > LFS_SIZE or _BINARY_SAMPLE.search(sample) is not None

    def blob(self, path: str, content: bytes) -> Blob:
        """`content` as the Hub would keep it under `path`."""
        return Blob(content, self.goes_to_lfs(path, content[:512], len(content)))

    def open_discussion(self, title: str, author: str, *, base: str | None = None, target: str = MAIN) -> Discussion:
        """A new discussion; with `base`, a pull request onto `target` that starts from that commit."""
        if not self.discussions_enabled:
            raise Refusal(403, "Discussions are disabled for this repo")
        made = Discussion(len(self.discussions) + 1, title, author, self.clock.tick(), base, target)
        self.discussions.append(made)
        if base is not None:
            self.refs[made.ref] = base
        return made

    def discussion(self, num: int) -> Discussion:
        """The discussion with that number.

        Raises:
            Refusal: 404 where there is none.
        """
        if not 1 <= num <= len(self.discussions):
            raise Refusal(404, "Discussion not found")
        return self.discussions[num - 1]

    def changes(self, pull: Discussion) -> dict[str, Blob | None]:
        """What a pull request changes, by path; a removed file is None."""
        if pull.base is None:
            raise Refusal(400, "This is not a pull request")
        before, after = self.commits[pull.base].files, self.at(pull.ref).files
        return {path: after.get(path) for path in sorted({*before, *after}) if before.get(path) != after.get(path)}

    def conflicts(self, pull: Discussion) -> list[str]:
        """The files that both the pull request and its target have changed, differently."""
        changes = self.changes(pull)
        before, now = self.commits[pull.base or ""].files, self.at(pull.target).files
        return [path for path, blob in changes.items() if now.get(path) not in (before.get(path), blob)]

    def merge(self, pull: Discussion, author: str) -> Commit:
        """Squashes a pull request onto its target.

        Raises:
            Refusal: 409 where it conflicts; 400 where it is not an open pull request.
        """
        if pull.status not in ("open", "draft"):
            raise Refusal(400, f"This pull request is {pull.status}")
        changes, conflicts = self.changes(pull), self.conflicts(pull)
        if conflicts:
            raise Refusal(409, f"This pull request conflicts in {', '.join(conflicts)}")
        files = {path: blob for path, blob in {**self.at(pull.target).files, **changes}.items() if blob is not None}
        made = self.commit(pull.target, files, author=author, title=f"{pull.title} (#{pull.num})")
        pull.status, pull.merged = "merged", made.oid
        return made


def new_repo(repo_id: str, repo_type: str, clock: Clock, *, private: bool, author: str) -> Repo:
    """A repository as the Hub makes it: one commit that holds `.gitattributes`."""
    repo = Repo(repo_id, repo_type, clock, private)
    lines = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS.split())
    repo.commit(MAIN, {".gitattributes": Blob(lines.encode())}, author=author, title="initial commit")
    return repo
