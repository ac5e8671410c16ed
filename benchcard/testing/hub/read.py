"""The endpoints of `LocalHub` that read a repository: its properties, listings, history and files.

Leaves rights and routes to `api`.

Source: the requests that huggingface_hub 2.4 and datasets 5.2 send, and https://huggingface.co/docs/hub/api.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote

from benchcard.testing.hub.api import API, PAGE, HubApi, Reply, Request, Route, format_time, json_reply
from benchcard.testing.hub.metadata import card_data
from benchcard.testing.hub.store import Commit, Refusal, Repo, tree_ids

_PAGE_SIZE = 1000


def _info(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo = api.repo(request, match)
    commit = repo.at(unquote(match["rev"] or "main"))
    card = commit.files.get("README.md")
    data = card_data(card.content.decode("utf-8", "replace")) if card and not card.lfs else {}
    siblings = []
    for path, blob in sorted(commit.files.items()):
        sibling: dict[str, object] = {"rfilename": path}
        if request.flag("blobs"):
            sibling |= {"size": len(blob.content), "blobId": blob.oid}
            if blob.lfs:
                sibling["lfs"] = {"sha256": blob.sha256, "size": len(blob.content), "pointerSize": len(blob.pointer)}
        siblings.append(sibling)
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
    return json_reply({key: value for key, value in answer.items() if not keys or key in ("id", *keys)})


def _entry(repo: Repo, commit: Commit, path: str, expand: bool) -> dict[str, object] | None:
    blob, folder = commit.files.get(path), path.strip("/")
    if blob is not None:
        entry: dict[str, object] = {"type": "file", "oid": blob.oid, "size": len(blob.content), "path": path}
        if blob.lfs:
            entry["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": len(blob.pointer)}
    elif any(name.startswith(f"{folder}/") for name in commit.files):
        entry = {"type": "directory", "oid": tree_ids(commit.files)[folder], "size": 0, "path": folder}
    else:
        return None
    if expand:
        change = repo.last_change(commit, path if blob is not None else f"{folder}/")
        entry["lastCommit"] = {"id": change.oid, "title": change.title, "date": format_time(change.date)}
    return entry


def _tree(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo = api.repo(request, match)
    commit, root = repo.at(unquote(match["rev"])), unquote(match["path"] or "").strip("/")
    prefix = f"{root}/" if root else ""
    files = [path for path in commit.files if path.startswith(prefix)]
    if root and not files:
        raise Refusal(404, f"{root} does not exist on {unquote(match['rev'])!r}", "EntryNotFound")
    entries: set[str] = set()
    for path in files:
        parts = path[len(prefix) :].split("/")
        depth = len(parts) if request.flag("recursive") else 1
        entries.update(prefix + "/".join(parts[: count + 1]) for count in range(depth))
    start, names = int(request.query.get("cursor", ["0"])[-1]), sorted(entries)
    page = names[start : start + _PAGE_SIZE]
    items = [_entry(repo, commit, path, request.flag("expand")) for path in page]
    headers = {}
    if start + _PAGE_SIZE < len(names):
        query = "&".join(f"{key}={values[-1]}" for key, values in request.query.items() if key != "cursor")
        address = f"{api.endpoint}{request.path}?{query}&cursor={start + _PAGE_SIZE}"
        headers["Link"] = f'<{address}>; rel="next"'
    return json_reply(items, headers=headers)


def _paths_info(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo = api.repo(request, match)
    commit, form = repo.at(unquote(match["rev"])), parse_qs(request.body.decode())
    expand = form.get("expand", ["0"])[-1].lower() in ("1", "true")
    entries = [_entry(repo, commit, path, expand) for path in form.get("paths", [])]
    return json_reply([entry for entry in entries if entry is not None])


def _commits(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo = api.repo(request, match)
    return json_reply(
        [
            {
                "id": commit.oid,
                "title": commit.title,
                "message": commit.description,
                "authors": [{"user": commit.author}],
                "date": format_time(commit.date),
            }
            for commit in repo.history(repo.at(unquote(match["rev"])))
        ]
    )


def _refs(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo = api.repo(request, match)

    def under(folder: str) -> list[dict[str, str]]:
        refs = [(ref, oid) for ref, oid in repo.refs.items() if ref.startswith(folder)]
        return [{"name": ref[len(folder) :], "ref": ref, "targetCommit": oid} for ref, oid in refs]

    answer = {"branches": under("refs/heads/"), "tags": under("refs/tags/"), "converts": under("refs/convert/")}
    if request.flag("include_prs"):
        answer["pullRequests"] = under("refs/pr/")
    return json_reply(answer)


def _resolve(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo = api.repo(request, match)
    commit, path = repo.at(unquote(match["rev"])), unquote(match["path"])
    commit_header = {"X-Repo-Commit": commit.oid}
    blob = commit.files.get(path)
    if blob is None:
        raise Refusal(404, "Entry not found", "EntryNotFound", commit_header)
    headers = {**commit_header, "ETag": f'"{blob.etag}"', "Content-Type": "application/octet-stream"}
    if blob.lfs:
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content))}
    return Reply(200, blob.content, headers)


def _xet(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    api.repo(request, match)
    raise Refusal(404, "This Hub supports LFS, not Xet: set HF_HUB_DISABLE_XET=1 before huggingface_hub is imported")


_REV = "(?P<rev>[^/]+)"
READ_ROUTES = (
    Route("info", "GET", f"{API}(?:/revision/{_REV})?", _info),
    Route("tree", "GET", f"{API}/tree/{_REV}(?:/(?P<path>.+))?", _tree),
    Route("paths-info", "POST", f"{API}/paths-info/{_REV}", _paths_info),
    Route("commits", "GET", f"{API}/commits/{_REV}", _commits),
    Route("refs", "GET", f"{API}/refs", _refs),
    Route("xet", "GET", f"{API}/xet-(?:write|read)-token/{_REV}", _xet),
    Route("resolve", "GET", f"{PAGE}/(?:resolve|raw)/{_REV}/(?P<path>.+)", _resolve),
)
