"""The endpoints of `LocalHub` for discussions and pull requests.

Owns the shape of a discussion and of what happened in it, and who may close or merge one. What a pull request holds,
and how it is merged, is `hub_store`'s.

Source: the requests that huggingface_hub 2.4 sends.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from benchcard.testing.hub.api import API, HubApi, Reply, Request, Route, User, json_reply, stamp
from benchcard.testing.hub.store import Discussion, Refusal, Repo

_PAGE_SIZE = 50


def _summary(repo: Repo, discussion: Discussion) -> dict[str, Any]:
    return {
        "num": discussion.num,
        "title": discussion.title,
        "status": discussion.status,
        "isPullRequest": discussion.base is not None,
        "createdAt": stamp(discussion.created),
        "author": {"name": discussion.author},
        "repo": {"name": repo.repo_id, "type": repo.repo_type},
    }


def _list(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo = api.repo(request, match)

    def wanted(name: str) -> str | None:
        value = request.query.get(name, ["all"])[-1]
        return None if value == "all" else value

    kind, status, author = wanted("type"), wanted("status"), wanted("author")
    found = [
        discussion
        for discussion in reversed(repo.discussions)
        if (kind is None or (kind == "pull_request") == (discussion.base is not None))
        and (status is None or (status == "open") == (discussion.status in ("open", "draft")))
        and author in (None, discussion.author)
    ]
    start = int(request.query.get("p", ["0"])[-1]) * _PAGE_SIZE
    page = [_summary(repo, discussion) for discussion in found[start : start + _PAGE_SIZE]]
    return json_reply({"discussions": page, "count": len(found), "start": start})


def _open(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo, user, asked = api.repo(request, match), api.signed_in(request), request.json()
    base = repo.at("main").oid if asked.get("pullRequest") else None
    made = repo.open_discussion(str(asked.get("title", "")), user.name, base=base)
    if base is not None:
        made.status = "draft"
    _add_comment(api, made, user, str(asked.get("description", "")))
    return json_reply({"num": made.num, "pullRequest": base is not None})


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


def _event(api: HubApi, kind: str, user: User, data: dict[str, Any]) -> dict[str, Any]:
    moment = api.clock.tick()
    author = {"name": user.name}
    return {
        "id": f"{int(moment.timestamp()):024x}",
        "type": kind,
        "createdAt": stamp(moment),
        "author": author,
        "data": data,
    }


def _add_comment(api: HubApi, discussion: Discussion, user: User, text: str) -> dict[str, Any]:
    data = {"edited": False, "hidden": False, "latest": {"raw": text, "html": text}, "history": []}
    discussion.events.append(_event(api, "comment", user, data))
    return discussion.events[-1]


def _comment(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo, user = api.repo(request, match), api.signed_in(request)
    text = str(request.json().get("comment", ""))
    return json_reply({"newMessage": _add_comment(api, repo.discussion(int(match["num"])), user, text)})


def _status(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo, user, asked = api.repo(request, match), api.signed_in(request), request.json()
    discussion = repo.discussion(int(match["num"]))
    if discussion.author != user.name and not api.owns(user, repo.owner):
        raise Refusal(403, "Only its author or the owner of the repo may do this")
    if asked.get("status") not in ("open", "closed"):
        raise Refusal(400, "status must be one of [open, closed]")
    discussion.status = str(asked["status"])
    event = _event(api, "status-change", user, {"status": discussion.status})
    discussion.events.append(event)
    return json_reply({"newStatus": event})


def _merge(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    repo = api.repo(request, match)
    user = api.may_write(request, repo)
    made = repo.merge(repo.discussion(int(match["num"])), user.name)
    return json_reply({"commitOid": made.oid})


_ONE = f"{API}/discussions/(?P<num>[0-9]+)"
PULL_ROUTES = (
    Route("discussions", "GET", f"{API}/discussions", _list),
    Route("open-discussion", "POST", f"{API}/discussions", _open),
    Route("discussion", "GET", _ONE, _show),
    Route("comment", "POST", f"{_ONE}/comment", _comment),
    Route("status", "POST", f"{_ONE}/status", _status),
    Route("merge", "POST", f"{_ONE}/merge", _merge),
)
