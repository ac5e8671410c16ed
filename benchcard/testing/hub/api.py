"""Requests, replies, routes, users and rights of `LocalHub`, and its endpoints for accounts.

Leaves the other endpoints to `read`, `write` and `pulls`, and the HTTP connection with its faults to `http`.

Source: the requests that huggingface_hub 2.4 and 1.31 send, and https://huggingface.co/docs/hub/api.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from benchcard.testing.hub.metadata import check_metadata
from benchcard.testing.hub.store import Clock, Refusal, Repo, new_repo

_KEYWORDS = (
    "resolve raw revision tree paths-info preupload commit commits refs discussions auth-check branch tag settings "
    "xet-write-token xet-read-token"
)
_KEYWORD_PATTERN = "|".join(re.escape(word) for word in _KEYWORDS.split())
_REPO = rf"(?P<repo>[^/]+(?:/(?!(?:{_KEYWORD_PATTERN})(?:/|$))[^/]+)?)"
API = rf"/api/(?P<kind>models|datasets)/{_REPO}"
PAGE = rf"/(?:(?P<kind>datasets)/)?{_REPO}"


@dataclass(frozen=True)
class User:
    """The owner of a token, the role of the token ("write" or "read"), and the organizations that it may write to."""

    name: str
    token: str = field(repr=False)
    role: str = "write"
    organizations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """One request: the quoted path, its query, headers with lower-case names, and the body."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body, parsed as JSON.

        Raises:
            Refusal: 400 where it is not JSON.
        """
        try:
            return json.loads(self.body or b"{}")
        except ValueError:
            raise Refusal(400, "Invalid JSON body") from None

    def flag(self, name: str) -> bool:
        """Return whether the query sets `name`; clients send 1, true or True."""
        return self.query.get(name, ["0"])[-1].lower() in ("1", "true")


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
    """One endpoint: its name in faults, its method and path pattern, and its handler."""

    name: str
    method: str
    pattern: str
    handler: Callable[[HubApi, Request, re.Match[str]], Reply]


class HubApi:
    """The state of the Hub and its routes. The caller holds one lock around `find_route` and the handler."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.endpoint = ""
        self.clock = Clock()
        self.users: dict[str, User] = {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.renamed: dict[tuple[str, str], str] = {}
        self.uploads: dict[str, bytes] = {}
        self._routes = [(route, re.compile(route.pattern)) for route in routes]

    def find_route(self, method: str, path: str) -> tuple[str, Callable[[Request], Reply]]:
        """Return the name of the endpoint for a request, and its handler; an unknown endpoint is called `unknown`."""
        method = "GET" if method == "HEAD" else method
        for route, pattern in self._routes:
            match = pattern.fullmatch(path) if route.method == method else None
            if match is not None:
                return route.name, partial(_call, self, route, match)
        return "unknown", lambda _request: json_reply({"error": "Not Found"}, 404)

    # Users and rights

    def user(self, request: Request) -> User | None:
        """Return the user of the request's token; None without a token.

        Raises:
            Refusal: 401 for an unknown token.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not scheme:
            return None
        if scheme.lower() != "bearer" or token not in self.users:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.users[token]

    def signed_in(self, request: Request) -> User:
        """Return the user of the request's token.

        Raises:
            Refusal: 401 without a token.
        """
        user = self.user(request)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        return user

    @staticmethod
    def owns(user: User | None, namespace: str) -> bool:
        """Return whether a namespace is the user's own or one of their organizations."""
        return user is not None and namespace in (user.name, *user.organizations)

    def expect_writer(self, request: Request, repo: Repo, revision: str = "main") -> User:
        """Return the user if they may write: the owner to any revision, the author of a pull request to it.

        Raises:
            Refusal: 401 without a token, 403 without the right.
        """
        user = self.signed_in(request)
        pulls = [pull for pull in repo.discussions if pull.ref == revision]
        if pulls and pulls[0].status not in ("open", "draft"):
            raise Refusal(403, f"This pull request is {pulls[0].status}")
        allowed = self.owns(user, repo.owner) or (pulls and pulls[0].author == user.name)
        if user.role != "write" or not allowed:
            raise Refusal(403, f"You don't have the rights to write to this {repo.repo_type}")
        return user

    def repo(self, request: Request, match: re.Match[str]) -> Repo:
        """Return the repository of a request.

        Raises:
            Refusal: 307 where it was renamed; 404 (401 without a token) where it does not exist or is not visible.
        """
        kind, name = (match["kind"] or "models")[:-1], match["repo"]
        user = self.user(request)
        new = self.renamed.get((kind, name))
        if new is not None:
            query = "&".join(f"{key}={value}" for key, values in request.query.items() for value in values)
            path = request.path[: match.start("repo")] + new + request.path[match.end("repo") :]
            raise Refusal(307, f"Moved to {new}", headers={"Location": path + (f"?{query}" if query else "")})
        repo = self.repos.get((kind, name))
        if repo is None or (repo.private and not self.owns(user, repo.owner)):
            message = "Repository not found" if user else "Invalid username or password."
            raise Refusal(404 if user else 401, message, "RepoNotFound")
        return repo

    def url(self, repo: Repo) -> str:
        """Return the address of a repository's page."""
        return f"{self.endpoint}/{'datasets/' if repo.repo_type == 'dataset' else ''}{repo.repo_id}"

    def new_repo_id(self, request: Request) -> tuple[User, str, str]:
        """Return the user, and the type and id of the repository to create or delete."""
        user, body = self.signed_in(request), request.json()
        namespace = body.get("organization") or user.name
        if user.role != "write" or not self.owns(user, namespace):
            raise Refusal(403, f"You don't have the rights to create or delete repos of {namespace!r}")
        return user, str(body.get("type") or "model"), f"{namespace}/{body.get('name')}"


def _call(api: HubApi, route: Route, match: re.Match[str], request: Request) -> Reply:
    return route.handler(api, request, match)


def _whoami(api: HubApi, request: Request, _match: re.Match[str]) -> Reply:
    user = api.signed_in(request)
    orgs = [{"type": "org", "name": name, "roleInOrg": "write"} for name in user.organizations]
    auth = {"type": "access_token", "accessToken": {"displayName": "local", "role": user.role}}
    return json_reply({"type": "user", "name": user.name, "fullname": user.name, "orgs": orgs, "auth": auth})


def _create_repo(api: HubApi, request: Request, _match: re.Match[str]) -> Reply:
    user, kind, name = api.new_repo_id(request)
    body = request.json()
    if (kind, name) in api.repos:
        url = api.url(api.repos[kind, name])
        return json_reply({"error": f"You already created this {kind} repo: {name}", "url": url}, 409)
    private = bool(body.get("private")) or body.get("visibility") == "private"
    repo = api.repos[kind, name] = new_repo(name, kind, api.clock, private=private, author=user.name)
    return json_reply({"url": api.url(repo), "name": name, "private": private})


def _delete_repo(api: HubApi, request: Request, _match: re.Match[str]) -> Reply:
    _user, kind, name = api.new_repo_id(request)
    if api.repos.pop((kind, name), None) is None:
        raise Refusal(404, "Repository not found", "RepoNotFound")
    return json_reply({})


def _auth_check(api: HubApi, request: Request, match: re.Match[str]) -> Reply:
    api.repo(request, match)
    return json_reply({})


def _validate_yaml(api: HubApi, request: Request, _match: re.Match[str]) -> Reply:
    body = request.json()
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
