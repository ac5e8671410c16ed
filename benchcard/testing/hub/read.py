"""The endpoints of `LocalHub` that read a repository: its properties, listings, history and files.

Leaves rights and routes to `api`.

Source: the requests that huggingface_hub 2.4 and datasets 5.2 send, and https://huggingface.co/docs/hub/api.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlencode

from benchcard.testing.hub.api import API, PAGE, REV, Reply, Request, Route, format_time, json_reply
from benchcard.testing.hub.metadata import card_data
from benchcard.testing.hub.store import Blob, Refusal, tree_ids

_PAGE_SIZE = 1000


def _lfs(blob: Blob, id_name: str) -> dict[str, object]:
    """Return the properties of a file in LFS; nothing for other files."""
    properties = {id_name: blob.sha256, "size": len(blob.content), "pointerSize": len(blob.pointer)}
    return {"lfs": properties} if blob.lfs else {}


def _info(request: Request) -> object:
    repo, commit = request.repo, request.commit
    card = commit.files.get("README.md")
    data = card_data(card.content.decode("utf-8", "replace")) if card and not card.lfs else {}
    siblings: list[dict[str, object]] = []
    for path, blob in sorted(commit.files.items()):
        properties = {"size": len(blob.content), "blobId": blob.oid, **_lfs(blob, "sha256")}
        siblings.append({"rfilename": path, **(properties if request.flag("blobs") else {})})
    tags = data.get("tags")
    answer: dict[str, object] = {
        "id": repo.repo_id,
        "author": repo.owner,
        "sha": commit.oid,
        "lastModified": format_time(commit.date),
        "createdAt": format_time(repo.created),
        "private": repo.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else [],
        "siblings": siblings,
        **({"cardData": data} if data else {}),
        **({key: data[key] for key in ("pipeline_tag", "library_name") if key in data}),
    }
    keys = request.query.get("expand", [])
    return {key: value for key, value in answer.items() if not keys or key in ("id", *keys)}


def _entry(request: Request, path: str, expand: bool) -> dict[str, object] | None:
    """Return a file or folder of a listing; None where it does not exist."""
    commit, folder = request.commit, path.strip("/")
    blob = commit.files.get(path)
    if blob is not None:
        size = len(blob.content)
        entry = {"type": "file", "oid": blob.oid, "size": size, "path": path, **_lfs(blob, "oid")}
    elif oid := tree_ids(commit.files).get(folder):
        entry = {"type": "directory", "oid": oid, "size": 0, "path": folder}
    else:
        return None
    if expand:
        change = request.repo.last_change(commit, path if blob is not None else f"{folder}/")
        entry["lastCommit"] = {"id": change.oid, "title": change.title, "date": format_time(change.date)}
    return entry


def _list(request: Request) -> object:
    """Return the repositories of an author, or all, that the user may see."""
    author, kind, user = request.value("author", ""), request.match["kind"][:-1], request.user
    names = sorted(
        repo.repo_id
        for (repo_type, _), repo in request.api.repos.items()
        if repo_type == kind and author in ("", repo.owner)
        if not repo.private or (user and user.owns(repo.owner))
    )
    return _page(request, names, lambda name: {"id": name, "author": name.split("/")[0]})


def _page(request: Request, names: list[str], entry: Callable[[str], object]) -> Reply:
    """Return the entries of a page of names, with a link to the next page."""
    start = int(request.value("cursor", "0"))
    stop = start + _PAGE_SIZE
    headers = {}
    if stop < len(names):
        query = urlencode({**request.query, "cursor": [stop]}, doseq=True)
        headers["Link"] = f'<{request.api.endpoint}{request.path}?{query}>; rel="next"'
    return json_reply([entry(name) for name in names[start:stop]], headers=headers)


def _tree(request: Request) -> object:
    root = request.part("path").strip("/")
    prefix = f"{root}/" if root else ""
    paths = {*request.commit.files, *tree_ids(request.commit.files)}
    inner = sorted(path.removeprefix(prefix) for path in paths if path.startswith(prefix))
    if root and not inner:
        raise Refusal(404, f"{root} does not exist on {request.part('rev')!r}", "EntryNotFound")
    names = [prefix + path for path in inner if path and (request.flag("recursive") or "/" not in path)]
    return _page(request, names, lambda path: _entry(request, path, request.flag("expand")))


def _paths_info(request: Request) -> object:
    form = parse_qs(request.body.decode())
    expand = form.get("expand", ["0"])[-1].lower() in ("1", "true")
    entries = [_entry(request, path, expand) for path in form.get("paths", [])]
    return [entry for entry in entries if entry is not None]


def _commits(request: Request) -> object:
    return [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.description,
            "authors": [{"user": commit.author}],
            "date": format_time(commit.date),
        }
        for commit in request.repo.history(request.commit)
    ]


def _refs(request: Request) -> object:
    def under(folder: str) -> list[dict[str, str]]:
        refs = [(ref, oid) for ref, oid in request.repo.refs.items() if ref.startswith(folder)]
        return [{"name": ref.removeprefix(folder), "ref": ref, "targetCommit": oid} for ref, oid in refs]

    answer = {"branches": under("refs/heads/"), "tags": under("refs/tags/"), "converts": under("refs/convert/")}
    return {**answer, "pullRequests": under("refs/pr/")} if request.flag("include_prs") else answer


def _resolve(request: Request) -> object:
    commit_header = {"X-Repo-Commit": request.commit.oid}
    blob = request.commit.files.get(request.part("path"))
    if blob is None:
        raise Refusal(404, "Entry not found", "EntryNotFound", commit_header)
    size = len(blob.content)
    headers = {**commit_header, "ETag": f'"{blob.etag}"', "Content-Type": "application/octet-stream"}
    headers["Accept-Ranges"] = "bytes"
    if blob.lfs:
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(size)}
    limits = re.fullmatch(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", request.headers.get("range", ""))
    if limits is None or not any(limits.groups()):
        return Reply(200, blob.content, headers)
    start = int(limits[1]) if limits[1] else max(size - int(limits[2]), 0)
    stop = min(int(limits[2]) + 1, size) if limits[1] and limits[2] else size
    if start >= stop:
        return Reply(416, b"", {**headers, "Content-Range": f"bytes */{size}"})
    return Reply(206, blob.content[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"})


def _xet(_request: Request) -> object:
    raise Refusal(404, "This Hub supports LFS, not Xet: set HF_HUB_DISABLE_XET=1 before huggingface_hub is imported")


READ_ROUTES = (
    Route("list", "GET", "/api/(?P<kind>models|datasets)", _list),
    Route("info", "GET", f"{API}(?:/revision/{REV})?", _info),
    Route("tree", "GET", f"{API}/tree/{REV}(?:/(?P<path>.+))?", _tree),
    Route("paths-info", "POST", f"{API}/paths-info/{REV}", _paths_info),
    Route("commits", "GET", f"{API}/commits/{REV}", _commits),
    Route("refs", "GET", f"{API}/refs", _refs),
    Route("xet", "GET", f"{API}/xet-(?:write|read)-token/{REV}", _xet),
    Route("resolve", "GET", f"{PAGE}/(?:resolve|raw)/{REV}/(?P<path>.+)", _resolve),
)
