"""Which files of a repository a push may replace: those that benchcard put there, and no one else's.

Owns the manifest by which benchcard knows its own weights again, and the decision for each file. Asks no network; `hub`
reads what is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchcard.errors import HubError
from benchcard.hub_files import Remote, Upload


@dataclass(frozen=True)
class Guard:
    """How files that are there with other content are treated.

    Attributes:
        yields: these are only put where there is none, as `config.json`: the author's stays.
        claimed: these are replaced where the manifest there says that benchcard wrote what is there; else the push is
            refused.
        manifest: the file in the repository that says so.
        force: replaces all of them.
    """

    yields: frozenset[str] = frozenset()
    claimed: frozenset[str] = frozenset()
    manifest: str = ""
    force: bool = False


def entry(upload: Upload) -> dict[str, str]:
    """What a manifest keeps of a file: the ids under which git and LFS know it."""
    return {"sha256": upload.sha256, "blob_id": upload.blob_id}


def claimed(manifest: bytes | None) -> Mapping[str, Mapping[str, str]]:
    """The files that a manifest says benchcard wrote, with their ids; none where it cannot be read."""
    try:
        told = json.loads(manifest or b"{}")
    except ValueError:
        return {}
    files = told.get("files") if isinstance(told, dict) else None
    return {name: ids for name, ids in files.items() if isinstance(ids, dict)} if isinstance(files, dict) else {}


def settled(
    remote: Remote, uploads: Sequence[Upload], guard: Guard, known: Mapping[str, Mapping[str, str]]
) -> tuple[list[Upload], list[str]]:
    """The files that are sent, and a sentence about each that is left as it is.

    Raises:
        HubError: a file there is somebody else's, and is not replaced without `force`.
    """
    sent, left, refused = [], [], []
    for upload in uploads:
        there = upload.path in remote.blob_ids or upload.path in remote.lfs_ids
        ids = known.get(upload.path, {})
        own = Upload(upload.path, b"", 0, ids.get("blob_id", ""), ids.get("sha256", ""))
        if not there or guard.force or remote.has(upload) or remote.has(own):
            sent.append(upload)
        elif upload.path in guard.yields:
            left.append(f"{upload.path} is there with other content and was left as it is")
        elif upload.path in guard.claimed:
            refused.append(upload.path)
        else:
            sent.append(upload)
    if refused:
        raise HubError(
            f"{remote.repo_id} has {', '.join(refused)} with other content, which benchcard did not put there in this "
            'name: nothing was written. `force` replaces it, `artifacts="none"` pushes no weights.'
        )
    return sent, left
