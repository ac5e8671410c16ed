"""The endpoints of `LocalHub` that write to a repository: upload modes, LFS, commits, branches and tags.

Owns the checks of a commit: its parent, its changes and the metadata of the card. Leaves rights and routes to `api`.

Source: the requests that huggingface_hub 2.4 sends; https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping

from benchcard.hub.gitignore import GITIGNORE, is_ignored
from benchcard.testing.hub.api import API, PAGE, REV, Reply, Request, Route, json_reply
from benchcard.testing.hub.metadata import check_metadata
from benchcard.testing.hub.store import Blob, Refusal, Repo


def _decoded(text: object) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error:
        raise Refusal(400, "Invalid base64 content") from None


def _preupload(request: Request) -> object:
    repo, body = request.repo, request.json
    request.expect_writer(None if request.flag("create_pr") else request.part("rev"))
    present = request.commit.files
    rules = body.get("gitIgnore") or (present[GITIGNORE].content.decode() if GITIGNORE in present else "")
    answers = []
    for file in body.get("files", []):
        path = str(file["path"])
        lfs = repo.goes_to_lfs(path, _decoded(file.get("sample", "")), int(file["size"]))
        answer = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": is_ignored(path, rules)}
        answers.append({**answer, "oid": present[path].etag} if path in present else answer)
    return {"files": answers, "commitOid": request.commit.oid}


def _commit(request: Request) -> object:
    api, repo, revision, pull_request = request.api, request.repo, request.part("rev"), request.flag("create_pr")
    user = request.expect_writer(None if pull_request else revision)
    lines = _read_lines(request.body)
    header = dict(lines).get("header", {})
    title, parent = str(header.get("summary") or ""), header.get("parentCommit")
    ref = repo.ref_of(revision)
    if ref is None or (pull_request and not ref.startswith("refs/heads/")):
        raise Refusal(404, f"{revision} is not a branch", "RevisionNotFound")
    if not title:
        raise Refusal(400, "A commit needs a summary")
    base = repo.commits[repo.refs[ref]]
    if parent is not None:
        if not re.fullmatch("[0-9a-f]{5,40}", str(parent)):
            raise Refusal(400, "Invalid parentCommit")
        if pull_request:
            base = repo.at(str(parent))
        elif not base.oid.startswith(str(parent)):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    files = dict(base.files)
    for key, value in lines:
        if key != "header":
            _change(repo, files, key, value)
    card = files.get("README.md")
    if card is not None and not card.lfs and card != base.files.get("README.md"):
        errors, _warnings = check_metadata(card.content.decode("utf-8", "replace"), repo.repo_type)
        if errors:
            messages = [{"message": text} for text in errors]
            return json_reply({"error": "Invalid metadata in README.md", "errors": messages}, 400)
    url = {}
    if pull_request:
        pull = repo.open_discussion(title, user.name, base=base.oid, target=ref)
        ref = pull.ref
        url = {"pullRequestUrl": f"{api.url(repo)}/discussions/{pull.num}"}
    commit = repo.commit(ref, files, author=user.name, title=title, description=str(header.get("description") or ""))
    answer = {"commitOid": commit.oid, "commitUrl": f"{api.url(repo)}/commit/{commit.oid}"}
    return {"success": True, "hookOutput": "", **answer, **url}


def _read_lines(body: bytes) -> list[tuple[str, dict[str, object]]]:
    """Return the key and the value of each line of a commit."""
    try:
        lines = [json.loads(line) for line in body.splitlines()]
        return [(str(line["key"]), dict(line["value"])) for line in lines]
    except (ValueError, KeyError, TypeError):
        raise Refusal(400, "A commit is one JSON object per line, each with a key and a value") from None


def _change(repo: Repo, files: dict[str, Blob], key: str, value: Mapping[str, object]) -> None:
    """Make the change of one line of a commit in `files`."""
    path = str(value.get("path", ""))
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise Refusal(400, f"Invalid path: {path!r}")
    if key == "file":
        files[path] = Blob(_decoded(value.get("content")))
    elif key == "lfsFile":
        content = repo.lfs.get(str(value.get("oid")))
        if content is None:
            raise Refusal(400, f"LFS pointer of {path} points to a file that does not exist: {value.get('oid')}")
        files[path] = Blob(content, lfs=True)
    elif key in ("deletedFile", "deletedFolder"):
        folder = f"{path.rstrip('/')}/"
        deleted = [name for name in files if name == path or (key == "deletedFolder" and name.startswith(folder))]
        if not deleted:
            raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
        for name in deleted:
            del files[name]
    else:
        raise Refusal(400, f"Unknown key in a commit: {key!r}")


def _lfs_batch(request: Request) -> object:
    api, repo = request.api, request.repo
    request.expect_writer(None)
    objects = []
    for item in request.json.get("objects", []):
        oid, answer = str(item["oid"]), {"oid": item["oid"], "size": item["size"]}
        if oid not in repo.lfs:
            verify = f"{api.url(repo)}.git/info/lfs/objects/verify"
            upload = {"href": f"{api.endpoint}/lfs-storage/{oid}", "header": {}}
            answer["actions"] = {"upload": upload, "verify": {"href": verify, "header": {}}}
        objects.append(answer)
    return {"transfer": "basic", "objects": objects}


def _lfs_upload(request: Request) -> object:
    oid = hashlib.sha256(request.body).hexdigest()
    if oid != request.part("oid"):
        raise Refusal(400, "The content does not match its digest")
    request.api.uploads[oid] = request.body
    return Reply(headers={"ETag": f'"{oid}"'})


def _lfs_verify(request: Request) -> object:
    request.expect_writer(None)
    oid, size = str(request.json.get("oid")), request.json.get("size")
    content = request.api.uploads.get(oid)
    if content is None or len(content) != size:
        raise Refusal(404, "This object was not uploaded")
    request.repo.lfs[oid] = content
    return {}


def _branch(request: Request) -> object:
    request.expect_writer()
    refs, ref = request.repo.refs, f"refs/heads/{request.part('rev')}"
    if ref in refs:
        raise Refusal(409, f"Reference already exists: {ref}")
    refs[ref] = request.repo.at(str(request.json.get("startingPoint") or "main")).oid
    return {}


def _tag(request: Request) -> object:
    request.expect_writer()
    request.repo.refs[f"refs/tags/{request.json['tag']}"] = request.commit.oid
    return {}


WRITE_ROUTES = (
    Route("preupload", "POST", f"{API}/preupload/{REV}", _preupload),
    Route("commit", "POST", f"{API}/commit/{REV}", _commit),
    Route("branch", "POST", f"{API}/branch/{REV}", _branch),
    Route("tag", "POST", f"{API}/tag/{REV}", _tag),
    Route("lfs-batch", "POST", rf"{PAGE}\.git/info/lfs/objects/batch", _lfs_batch),
    Route("lfs-verify", "POST", rf"{PAGE}\.git/info/lfs/objects/verify", _lfs_verify),
    Route("lfs-upload", "PUT", "/lfs-storage/(?P<oid>[0-9a-f]{64})", _lfs_upload),
)
