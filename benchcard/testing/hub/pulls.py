"""The endpoints of `LocalHub` for discussions and pull requests.

Owns the form of a discussion and its events, and the right to close or merge one. Leaves the content of a pull request
and its merge to `store`.

Source: the requests that huggingface_hub 2.4 sends.
"""

from __future__ import annotations

import difflib

from benchcard.testing.hub.api import API, Request, Route, format_time
from benchcard.testing.hub.store import Discussion, Refusal, Repo

_PAGE_SIZE = 50


def _summary(repo: Repo, discussion: Discussion) -> dict[str, object]:
    return {
        "num": discussion.num,
        "title": discussion.title,
        "status": discussion.status,
        "isPullRequest": discussion.base is not None,
        "createdAt": format_time(discussion.created),
        "author": {"name": discussion.author},
        "repo": {"name": repo.repo_id, "type": repo.repo_type},
    }


def _list(request: Request) -> object:
    discussions = []
    for discussion in reversed(request.repo.discussions):
        properties = {
            "type": "discussion" if discussion.base is None else "pull_request",
            "status": "open" if discussion.is_open else "closed",
            "author": discussion.author,
        }
        if all(request.value(name, "all") in ("all", value) for name, value in properties.items()):
            discussions.append(_summary(request.repo, discussion))
    start = int(request.value("p", "0")) * _PAGE_SIZE
    return {"discussions": discussions[start : start + _PAGE_SIZE], "count": len(discussions), "start": start}


def _open(request: Request) -> object:
    repo, body = request.repo, request.json
    base = repo.at("main").oid if body.get("pullRequest") else None
    discussion = repo.open_discussion(str(body.get("title", "")), request.signed_in.name, base=base)
    if base is not None:
        discussion.status = "draft"
    _add_comment(request, discussion, str(body.get("description", "")))
    return {"num": discussion.num, "pullRequest": base is not None}


def _discussion(request: Request) -> Discussion:
    number, discussions = int(request.match["num"]), request.repo.discussions
    if not 1 <= number <= len(discussions):
        raise Refusal(404, "Discussion not found")
    return discussions[number - 1]


def _show(request: Request) -> object:
    repo, discussion = request.repo, _discussion(request)
    answer = {**_summary(repo, discussion), "events": discussion.events}
    if discussion.base is not None:
        merged = {"mergeCommitId": discussion.merged} if discussion.merged else {}
        conflicts = repo.conflicts(discussion) if discussion.is_open else []
        answer |= {"changes": {"base": discussion.target, **merged}, "filesWithConflicts": conflicts}
        if request.flag("diff"):
            answer["diff"] = _diff(repo, discussion)
    return answer


def _diff(repo: Repo, pull: Discussion) -> str:
    before = repo.commits[pull.base or ""].files
    lines: list[str] = []
    for path, blob in repo.changes(pull).items():
        old = before[path].content.decode("utf-8", "replace") if path in before else ""
        new = blob.content.decode("utf-8", "replace") if blob is not None else ""
        lines += difflib.unified_diff(old.splitlines(True), new.splitlines(True), f"a/{path}", f"b/{path}")
    return "".join(lines)


def _add_event(request: Request, discussion: Discussion, kind: str, data: dict[str, object]) -> dict[str, object]:
    time = next(request.api.clock)
    event: dict[str, object] = {
        "id": f"{int(time.timestamp()):024x}",
        "type": kind,
        "createdAt": format_time(time),
        "author": {"name": request.signed_in.name},
        "data": data,
    }
    discussion.events.append(event)
    return event


def _add_comment(request: Request, discussion: Discussion, text: str) -> dict[str, object]:
    data = {"edited": False, "hidden": False, "latest": {"raw": text, "html": text}, "history": []}
    return _add_event(request, discussion, "comment", data)


def _comment(request: Request) -> object:
    return {"newMessage": _add_comment(request, _discussion(request), str(request.json.get("comment", "")))}


def _status(request: Request) -> object:
    user, status, discussion = request.signed_in, request.json.get("status"), _discussion(request)
    if discussion.author != user.name and not user.owns(request.repo.owner):
        raise Refusal(403, "Only its author or the owner of the repo may do this")
    if status not in ("open", "closed"):
        raise Refusal(400, "status must be one of [open, closed]")
    discussion.status = status
    return {"newStatus": _add_event(request, discussion, "status-change", {"status": status})}


def _merge(request: Request) -> object:
    user = request.expect_writer()
    return {"commitOid": request.repo.merge(_discussion(request), user.name).oid}


_ONE = f"{API}/discussions/(?P<num>[0-9]+)"
PULL_ROUTES = (
    Route("discussions", "GET", f"{API}/discussions", _list),
    Route("open-discussion", "POST", f"{API}/discussions", _open),
    Route("discussion", "GET", _ONE, _show),
    Route("comment", "POST", f"{_ONE}/comment", _comment),
    Route("status", "POST", f"{_ONE}/status", _status),
    Route("merge", "POST", f"{_ONE}/merge", _merge),
)
