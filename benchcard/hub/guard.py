"""Which files of a repository a push may replace: those that benchcard put there, and no one else's.

Owns the manifest by which benchcard knows its own weights again, and the decision for each file. Asks no network; `hub`
reads what is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from benchcard.errors import HubError
from benchcard.hub.files import Remote, Upload
from benchcard.utils.parsing import UnreadableError, load_json

IGNORE = ".gitignore"


@dataclass(frozen=True)
class Guard:
    """How files that are there with other content are treated.

    Attributes:
        yields: these are read together, as `config.json` and `tokenizer.json`, and are only put where none of them is
            there that is somebody else's, whose model would be read otherwise.
        claimed: these are replaced where the manifest there says that benchcard wrote what is there; else the push is
            refused.
        manifest: the file in the repository that says so.
        force: replaces those that are claimed.
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
        told = load_json(manifest or b"{}")
    except UnreadableError:
        return {}
    files = told.get("files") if isinstance(told, dict) else None
    return {name: ids for name, ids in files.items() if isinstance(ids, dict)} if isinstance(files, dict) else {}


def is_ignored(path: str, rules: str) -> bool:
    """Whether a `.gitignore` keeps a file out; of its rules the last one that fits counts.

    Source: https://git-scm.com/docs/gitignore ; here `*` fits a slash, too.
    """
    parts, found = path.split("/"), False
    folders = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
    for line in map(str.strip, rules.splitlines()):
        rule = line.removeprefix("!")
        names = folders if rule.endswith("/") else [*folders, path]
        pattern = rule.rstrip("/")
        if "/" not in pattern:
            names = [name.rsplit("/", 1)[-1] for name in names]
        # At the beginning, two stars and a slash stand for any folders, or for none.
        patterns = pattern.lstrip("/"), pattern.removeprefix("**/")
        fits = any(fnmatchcase(name, each) for name in names for each in patterns)
        if rule and not line.startswith("#") and fits:
            found = rule == line
    return found


def kept_out(paths: Sequence[str]) -> list[str]:
    """That a `.gitignore` keeps files out, in a sentence; nothing where there are none."""
    said = f"{', '.join(paths)} not pushed: the .gitignore there keeps such files out, and links to them fail"
    return [said] if paths else []


def without_conflicts(
    remote: Remote, uploads: Sequence[Upload], guard: Guard, known: Mapping[str, Mapping[str, str]], rules: str = ""
) -> tuple[list[Upload], list[str], list[str]]:
    """The files that are sent, in sentences those that are not, and the paths of those that the `.gitignore` there,
    whose text is `rules`, keeps out.

    Raises:
        HubError: a file there is somebody else's, and is not replaced without `force`.
    """
    by_path = {upload.path: upload for upload in uploads}

    def is_ours(path: str) -> bool:
        """Whether what is there is what would be sent, or what benchcard sent earlier."""
        ids = known.get(path, {})
        earlier = Upload(path, b"", 0, ids.get("blob_id", ""), ids.get("sha256", ""))
        return remote.has(earlier) or (path in by_path and remote.has(by_path[path]))

    foreign = [path for path in sorted(guard.yields & remote.paths) if not is_ours(path)]
    sent, left, ignored, refused = [], [], [], []
    for upload in uploads:
        if is_ignored(upload.path, rules) and not remote.has(upload):
            ignored.append(upload.path)
        elif is_ours(upload.path):
            sent.append(upload)
        elif foreign and upload.path in guard.yields:
            left.append(upload.path)
        elif guard.force:
            sent.append(upload)
        elif upload.path in guard.claimed and upload.path in remote.paths:
            refused.append(upload.path)
        else:
            sent.append(upload)
    if refused:
        raise HubError(
            f"{remote.repo_id} has {', '.join(refused)} with other content, which benchcard did not put there in this "
            'name: nothing was written. `force` replaces it, `artifacts="none"` pushes no weights.'
        )
    together = f"{', '.join(left)} not pushed: such files are read together"
    said = [f"{together}, and the repository has {', '.join(foreign)} of other content"] if left else []
    return sent, said, ignored
