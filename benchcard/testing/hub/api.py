"""Requests, replies, routes, users and rights of `LocalHub`, and its endpoints for accounts.

Leaves the other endpoints to `read`, `write` and `pulls`, and the HTTP connection with its faults to `http`.

Source: the requests that huggingface_hub 2.4 and 1.31 send, and https://huggingface.co/docs/hub/api.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlencode

from benchcard.testing.hub.metadata import check_metadata
from benchcard.testing.hub.store import LFS_PATTERNS, MAIN, Blob, Commit, Refusal, Repo, ticking_clock

# The parts of a path that follow the id of a repository, which may have one part or two.
_KEYWORDS = (
    "resolve|raw|revision|tree|paths-info|preupload|commit|commits|refs|discussions|auth-check|branch|tag|settings|"
    "xet-write-token|xet-read-token"
)
_REPO = rf"(?P<repo>[^/]+(?:/(?!(?:{_KEYWORDS})(?:/|$))[^/]+)?)"
API = rf"/api/(?P<kind>models|datasets)/{_REPO}"
PAGE = rf"/(?:(?P<kind>datasets)/)?{_REPO}"
REV = "(?P<rev>[^/]+)"


@dataclass(frozen=True)
class User:
    """The owner of a token, the role of the token ("write" or "read"), and the organizations that it may write to."""

    name: str
    role: str = "write"
    organizations: tuple[str, ...] = ()

    def owns(self, namespace: str) -> bool:
        """Return whether a namespace is the user's own or one of their organizations."""
        return namespace in (self.name, *self.organizations)


@dataclass(frozen=True)
class Reply:
    """One reply."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a value as a reply in JSON."""
    body = json.dumps(value, default=str).encode()
    return Reply(status, body, {"Content-Type": "application/json; charset=utf-8", **(headers or {})})


def refusal_reply(refusal: Refusal) -> Reply:
    """Return a refusal in the form of the Hub: the message in a header and in the body."""
    headers = {"X-Error-Message": refusal.message.replace("\n", " "), **refusal.headers}
    if refusal.code:
        headers["X-Error-Code"] = refusal.code
    return json_reply({"error": refusal.message}, refusal.status, headers)


def format_time(time: datetime) -> str:
    """Return a time in the format of the Hub."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z")


@dataclass(frozen=True)
class Route:
    """One endpoint: its name in faults, its method and path pattern, and its handler, which returns a reply or JSON."""

    name: str
    method: str
    pattern: str
    handler: Callable[[Request], object]


class HubApi:
    """The state of the Hub and its routes. `lock` is held around each use."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.endpoint = ""
        self.lock = threading.RLock()
        self.clock = ticking_clock()
        self.users: dict[str, User] = {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.renamed: dict[tuple[str, str], str] = {}
        self.uploads: dict[str, bytes] = {}
        self._routes = [*routes, Route("unknown", "*", ".*", _unknown)]

    def find_route(self, method: str, path: str) -> tuple[Route, re.Match[str]]:
        """Return the endpoint for a request, and the parts of its path; an unknown endpoint is called `unknown`."""
        method = "GET" if method == "HEAD" else method
        routes = (route for route in self._routes if route.method in (method, "*"))
        return next((route, match) for route in routes if (match := re.fullmatch(route.pattern, path)))

    def add_repo(self, repo_id: str, repo_type: str, *, private: bool, author: str) -> Repo:
        """Add a new repository, with one commit that contains `.gitattributes`, and return it."""
        repo = self.repos[repo_type, repo_id] = Repo(repo_id, repo_type, self.clock, next(self.clock), private)
        lines = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS.split())
        repo.commit(MAIN, {".gitattributes": Blob(lines.encode())}, author=author, title="initial commit")
        return repo

    def url(self, repo: Repo) -> str:
        """Return the address of a repository's page."""
        return f"{self.endpoint}/{'datasets/' if repo.repo_type == 'dataset' else ''}{repo.repo_id}"


@dataclass(frozen=True)
class Request:
    """One request, and what it means for the Hub. Its methods raise a `Refusal` where the Hub refuses the request.

    `path` is quoted, and `match` has its parts; the names of `headers` are in lower case.
    """

    api: HubApi
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    match: re.Match[str]

    def part(self, name: str) -> str:
        """Return a part of the path, unquoted; empty where the path lacks it."""
        return unquote(self.match[name] or "")

    def value(self, name: str, default: str) -> str:
        """Return the value of a name in the query."""
        return self.query.get(name, [default])[-1]

    def flag(self, name: str) -> bool:
        """Return whether the query sets `name`; clients send 1, true or True."""
        return self.value(name, "0").lower() in ("1", "true")

    @cached_property
    def json(self) -> Any:
        """The body, parsed as JSON."""
        try:
            return json.loads(self.body or b"{}")
        except ValueError:
            raise Refusal(400, "Invalid JSON body") from None

    @cached_property
    def user(self) -> User | None:
        """The user of the token; None without a token."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        if not scheme:
            return None
        if scheme.lower() != "bearer" or token not in self.api.users:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.api.users[token]

    @property
    def signed_in(self) -> User:
        """The user of the token, which is required."""
        if self.user is None:
            raise Refusal(401, "Invalid username or password.")
        return self.user

    @cached_property
    def repo(self) -> Repo:
        """The repository of the path. One that was renamed is a redirection, one that is not visible does not exist."""
        kind, name = (self.match["kind"] or "models")[:-1], self.match["repo"]
        if new := self.api.renamed.get((kind, name)):
            path = self.path[: self.match.start("repo")] + new + self.path[self.match.end("repo") :]
            query = f"?{urlencode(self.query, doseq=True)}" if self.query else ""
            raise Refusal(307, f"Moved to {new}", headers={"Location": path + query})
        repo = self.api.repos.get((kind, name))
        if repo is None or (repo.private and not (self.user and self.user.owns(repo.owner))):
            message = "Repository not found" if self.user else "Invalid username or password."
            raise Refusal(404 if self.user else 401, message, "RepoNotFound")
        return repo

    @property
    def commit(self) -> Commit:
        """The commit of the path's revision."""
        return self.repo.at(self.part("rev") or "main")

    def expect_writer(self, revision: str | None = "main") -> User:
        """Return the user if they may write: the owner to any revision, the author of a pull request to it, everyone to
        a new pull request, which is the revision None.
        """
        user = self.signed_in
        pull = next((pull for pull in self.repo.discussions if pull.ref == revision), None)
        if pull is not None and not pull.is_open:
            raise Refusal(403, f"This pull request is {pull.status}")
        is_author = revision is None or (pull is not None and pull.author == user.name)
        if user.role != "write" or not (is_author or user.owns(self.repo.owner)):
            raise Refusal(403, f"You don't have the rights to write to this {self.repo.repo_type}")
        return user

    def named_repo(self) -> tuple[User, str, str]:
        """Return the user, and the type and id of the repository that the body says to create or delete."""
        user, body = self.signed_in, self.json
        namespace = body.get("organization") or user.name
        if user.role != "write" or not user.owns(namespace):
            raise Refusal(403, f"You don't have the rights to create or delete repos of {namespace!r}")
        return user, str(body.get("type") or "model"), f"{namespace}/{body.get('name')}"


def _unknown(_request: Request) -> object:
    raise Refusal(404, "Not Found")


def _whoami(request: Request) -> object:
    user = request.signed_in
    orgs = [{"type": "org", "name": name, "roleInOrg": "write"} for name in user.organizations]
    auth = {"type": "access_token", "accessToken": {"displayName": "local", "role": user.role}}
    return {"type": "user", "name": user.name, "fullname": user.name, "orgs": orgs, "auth": auth}


def _create_repo(request: Request) -> object:
    api, body = request.api, request.json
    user, kind, name = request.named_repo()
    if repo := api.repos.get((kind, name)):
        return json_reply({"error": f"You already created this {kind} repo: {name}", "url": api.url(repo)}, 409)
    private = bool(body.get("private")) or body.get("visibility") == "private"
    repo = api.add_repo(name, kind, private=private, author=user.name)
    return {"url": api.url(repo), "name": name, "private": private}


def _delete_repo(request: Request) -> object:
    _user, kind, name = request.named_repo()
    if request.api.repos.pop((kind, name), None) is None:
        raise Refusal(404, "Repository not found", "RepoNotFound")
    return {}


def _auth_check(request: Request) -> object:
    return {"id": request.repo.repo_id}


def _validate_yaml(request: Request) -> object:
    body = request.json
    errors, warnings = check_metadata(str(body.get("content", "")), str(body.get("repoType") or "model"))
    answer = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return json_reply(answer, 400 if errors else 200)


ACCOUNT_ROUTES = (
    Route("whoami", "GET", "/api/whoami-v2", _whoami),
    Route("create-repo", "POST", "/api/repos/create", _create_repo),
    Route("delete-repo", "DELETE", "/api/repos/delete", _delete_repo),
    Route("validate-yaml", "POST", "/api/validate-yaml", _validate_yaml),
    Route("auth-check", "GET", f"{API}/auth-check", _auth_check),
)
