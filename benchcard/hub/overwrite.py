"""Which files of a repository a push may overwrite: those that benchcard wrote, and no one else's.

Owns the manifest that lists the files benchcard wrote, and the decision for each file. Makes no request.

A manifest also lists the files of earlier pushes that are still in the repository and no longer part of the push, so
that a later push can remove them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchcard.errors import HubError
from benchcard.hub.files import Snapshot, Upload, make_upload
from benchcard.hub.gitignore import is_ignored
from benchcard.utils.parsing import UnreadableError, load_json


@dataclass(frozen=True)
class OverwritePolicy:
    """How a push treats files that the repository already has with other content.

    Attributes:
        together: Files that libraries read together, such as `config.json` and `tokenizer.json`. None of them is sent
            where the repository has one of another author: its model would load differently.
        owned: Files that are replaced only where `manifest` says that benchcard wrote the present content; otherwise
            the push is refused.
        shared: Owned files that other sections write, too: one that any of them wrote is replaced.
        manifest: Path of the manifest in the repository.
        force: Whether `owned` files are replaced whoever wrote them.
        prune: Whether files that an earlier push wrote, and this one does not send, are removed.
    """

    together: frozenset[str] = frozenset()
    owned: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    manifest: str = ""
    force: bool = False
    prune: bool = False


@dataclass(frozen=True)
class Selection:
    """The files that a push sends, why others are left out, which `.gitignore` excludes, and which are removed."""

    uploads: Sequence[Upload]
    warnings: Sequence[str] = ()
    ignored: Sequence[str] = ()
    removed: Sequence[str] = ()

    def is_in(self, snapshot: Snapshot) -> bool:
        """Return whether a repository is as it would be after the push."""
        return not self.removed and all(snapshot.has(upload) for upload in self.uploads)


def manifest_entry(upload: Upload) -> dict[str, str]:
    """Return what a manifest keeps of a file: its ids in git and in LFS."""
    return {"sha256": upload.sha256, "blob_id": upload.blob_id}


def read_manifest(manifest: bytes | None) -> Mapping[str, Mapping[str, str]]:
    """Return the ids of the files that benchcard wrote, by path; empty where the manifest cannot be read."""
    try:
        content = load_json(manifest or b"{}")
    except UnreadableError:
        return {}
    files = content.get("files") if isinstance(content, dict) else None
    return {name: ids for name, ids in files.items() if isinstance(ids, dict)} if isinstance(files, dict) else {}


def select_uploads(
    snapshot: Snapshot,
    uploads: Sequence[Upload],
    policy: OverwritePolicy,
    manifest: bytes | None,
    rules: str = "",
    others: Iterable[bytes | None] = (),
) -> Selection:
    """Return which files are sent to a repository with this manifest and these rules in its `.gitignore`.

    `others` are the manifests of other sections, whose files stay.

    Raises:
        HubError: The repository has an owned file with content that benchcard did not write, and `force` is off.
    """
    by_path = {upload.path: upload for upload in uploads}
    written, of_others = read_manifest(manifest), [read_manifest(other) for other in others]
    in_use = {path for other in of_others for path in other}

    def is_ours(path: str) -> bool:
        """Return whether the content in the repository is what this or an earlier push writes."""
        manifests = [written, *(of_others if path in policy.shared else [])]
        all_ids = [ids for ids in (content.get(path, {}) for content in manifests) if ids]
        earlier = [Upload(path, b"", 0, ids.get("blob_id", ""), ids.get("sha256", "")) for ids in all_ids]
        return any(map(snapshot.has, [*earlier, *([by_path[path]] if path in by_path else [])]))

    stale = {path: ids for path, ids in written.items() if path not in in_use.union(by_path) and is_ours(path)}
    if stale and not policy.prune:
        uploads = [_with_files(each, stale) if each.path == policy.manifest else each for each in uploads]
    foreign = [path for path in sorted(policy.together & snapshot.paths) if not is_ours(path)]
    selected, skipped, ignored, refused = [], [], [], []
    for upload in uploads:
        if is_ignored(upload.path, rules) and not snapshot.has(upload):
            ignored.append(upload.path)
        elif is_ours(upload.path):
            selected.append(upload)
        elif foreign and upload.path in policy.together:
            skipped.append(upload.path)
        elif not policy.force and upload.path in policy.owned & snapshot.paths:
            refused.append(upload.path)
        else:
            selected.append(upload)
    if refused:
        raise HubError(
            f"{snapshot.repo_id} has {', '.join(refused)} with other content, which benchcard did not write under this "
            'name. Nothing was written. `force` replaces it; `artifacts="none"` pushes no weights.'
        )
    warnings = []
    if skipped:
        warnings.append(
            f"{', '.join(skipped)} not pushed: such files are read together, and the repository has "
            f"{', '.join(foreign)} with other content"
        )
    if stale and not policy.prune:
        warnings.append(f"kept from earlier pushes, though no longer chosen: {', '.join(sorted(stale))}; see `prune`")
    return Selection(selected, warnings, ignored, sorted(stale) if policy.prune else [])


def _with_files(manifest: Upload, files: Mapping[str, Mapping[str, str]]) -> Upload:
    """Return a manifest that lists more files."""
    source = manifest.source
    content = json.loads(source.read_bytes() if isinstance(source, Path) else source)
    return make_upload(manifest.path, dump_manifest({**content, "files": {**content["files"], **files}}))


def dump_manifest(content: Mapping[str, object]) -> bytes:
    """Return the bytes of a manifest, which are equal for equal contents."""
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
