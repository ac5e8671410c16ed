"""The endpoints of `LocalHub` for discussions and pull requests.

Owns the form of a discussion and its events, and the right to close or merge one. Leaves the content of a pull request
and its merge to `store`.

Source: the requests that huggingface_hub 2.4 sends.
"""

from __future__ import annotations

import difflib
import re

from benchcard.testing.hub.api import API, HubApi, Reply, Request, Route, User, format_time, json_reply
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


def _list(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo = api.repo(request, match)

    def filter_of(name: str) -> str | None:
        value = request.query.get(name, ["all"])[-1]
        return None if value == "all" else value

    kind, status, author = filter_of("type"), filter_of("status"), filter_of("author")
    discussions = [
        discussion
        for discussion in reversed(repo.discussions)
        if (kind is None or (kind == "pull_request") == (discussion.base is not None))
        and (status is None or (status == "open") == (discussion.status in ("open", "draft")))
        and author in (None, discussion.author)
    ]
    start = int(request.query.get("p", ["0"])[-1]) * _PAGE_SIZE
    page = [_summary(repo, discussion) for discussion in discussions[start : start + _PAGE_SIZE]]
    return json_reply({"discussions": page, "count": len(discussions), "start": start})


def _open(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo, user, body = api.repo(request, match), api.signed_in(request), request.json()
    base = repo.at("main").oid if body.get("pullRequest") else None
    discussion = repo.open_discussion(str(body.get("title", "")), user.name, base=base)
    if base is not None:
        discussion.status = "draft"
    _add_comment(api, discussion, user, str(body.get("description", "")))
    return json_reply({"num": discussion.num, "pullRequest": base is not None})


def _show(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo = api.repo(request, match)
    discussion = repo.discussion(int(match["num"]))
    answer = {**_summary(repo, discussion), "events": discussion.events}
    if discussion.base is not None:
        merged = {"mergeCommitId": discussion.merged} if discussion.merged else {}
        answer |= {"changes": {"base": discussion.target, **merged}, "filesWithConflicts": []}
        if discussion.status in ("open", "draft"):
            answer["filesWithConflicts"] = repo.conflicts(discussion)
        if request.flag("diff"):
            answer["diff"] = _diff(repo, discussion)
    return json_reply(answer)


def _diff(repo: Repo, pull: Discussion) -> str:
    before = repo.commits[pull.base or ""].files
    lines: list[str] = []
    for path, blob in repo.changes(pull).items():
        old = before[path].content.decode("utf-8", "replace") if path in before else ""
        new = blob.content.decode("utf-8", "replace") if blob is not None else ""
        lines += difflib.unified_diff(old.splitlines(True), new.splitlines(True), f"a/{path}", f"b/{path}")
    return "".join(lines)


def _event(api: HubApi, kind: str, user: User, data: dict[str, object]) -> dict[str, object]:
    time = api.clock.tick()
    return {
        "id": f"{int(time.timestamp()):024x}",
        "type": kind,
        "createdAt": format_time(time),
        "author": {"name": user.name},
        "data": data,
    }


def _add_comment(api: HubApi, discussion: Discussion, user: User, text: str) -> dict[str, object]:
    data = {"edited": False, "hidden": False, "latest": {"raw": text, "html": text}, "history": []}
    discussion.events.append(_event(api, "comment", user, data))
    return discussion.events[-1]


def _comment(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo, user = api.repo(request, match), api.signed_in(request)
    text = str(request.json().get("comment", ""))
    return json_reply({"newMessage": _add_comment(api, repo.discussion(int(match["num"])), user, text)})


def _status(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo, user = api.repo(request, match), api.signed_in(request)
    status, discussion = request.json().get("status"), repo.discussion(int(match["num"]))
    if discussion.author != user.name and not api.owns(user, repo.owner):
        raise Refusal(403, "Only its author or the owner of the repo may do this")
    if status not in ("open", "closed"):
        raise Refusal(400, "status must be one of [open, closed]")
    discussion.status = str(status)
    event = _event(api, "status-change", user, {"status": discussion.status})
    discussion.events.append(event)
    return json_reply({"newStatus": event})


def _merge(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo = api.repo(request, match)
    user = api.expect_writer(request, repo)
    commit = repo.merge(repo.discussion(int(match["num"])), user.name)
    return json_reply({"commitOid": commit.oid})


_ONE = f"{API}/discussions/(?P<num>[0-9]+)"
PULL_ROUTES = (
    Route("discussions", "GET", f"{API}/discussions", _list),
    Route("open-discussion", "POST", f"{API}/discussions", _open),
    Route("discussion", "GET", _ONE, _show),
    Route("comment", "POST", f"{_ONE}/comment", _comment),
    Route("status", "POST", f"{_ONE}/status", _status),
    Route("merge", "POST", f"{_ONE}/merge", _merge),
)
