"""A Hugging Face Hub of one's own, for tests: `LocalHub`.

Owns what a test says to it: which models and data sets there are, who may do what, what goes wrong, and what was asked.
Everything behind it is in memory and ends with the `with` block; nothing but the loopback is listened on.

    with LocalHub() as hub:
        hub.add_model("someone/tiny-vit", "folder/with/config.json")
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        hub.fail("commit", status=503)
        ...
        assert hub.read("someone/tiny-vit", "README.md") == b"..."

huggingface_hub reads its endpoint once, when it is imported. Code that takes an endpoint and a token can run in the
same process; code that does not (`transformers`, `datasets`) runs in a child process with `environment()`.
huggingface_hub 2 uploads large files through Xet alone unless `HF_HUB_DISABLE_XET=1` was set before its import; this
Hub speaks LFS.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal

from benchcard.testing.hub.api import ACCOUNT_ROUTES, HubApi, User
from benchcard.testing.hub.http import Fault, HubServer, SeenRequest
from benchcard.testing.hub.pulls import PULL_ROUTES
from benchcard.testing.hub.read import READ_ROUTES
from benchcard.testing.hub.store import MAIN, Blob, Commit, Discussion, Repo, new_repo
from benchcard.testing.hub.write import WRITE_ROUTES

RepoType = Literal["model", "dataset"]
Contents = Mapping[str, "bytes | str | None"]


class LocalHub:
    """A Hub on a free port of 127.0.0.1, from entering a `with` block to leaving it.

    Attributes:
        user: the name of the one user that it starts with; repositories under this name are theirs.
        token: their token, which may write.
        endpoint: the address, for `HF_ENDPOINT` and `HfApi(endpoint=)`.
    """

    def __init__(self, user: str = "local-user") -> None:
        self.user = user
        self._api = HubApi([*ACCOUNT_ROUTES, *READ_ROUTES, *WRITE_ROUTES, *PULL_ROUTES])
        self.token = self.add_user(user)
        self._server: HubServer | None = None
        self._home: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> LocalHub:
        self._server = HubServer(self._api)
        self._server.start()
        self._home = tempfile.TemporaryDirectory(prefix="local-hub-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        server, home = self._running(), self._home
        server.stop()
        if home is not None:
            home.cleanup()
        if server.failures and error is None:
            raise RuntimeError("LocalHub itself made a mistake while it answered") from server.failures[0]

    def _running(self) -> HubServer:
        if self._server is None:
            raise RuntimeError("LocalHub answers only inside its `with` block")
        return self._server

    @property
    def endpoint(self) -> str:
        """The address, as `http://127.0.0.1:PORT`."""
        self._running()
        return self._api.endpoint

    def environment(self) -> dict[str, str]:
        """The variables that make a child process use this Hub, and caches of its own that end with it.

        They count only before huggingface_hub is imported: `subprocess.run(..., env=os.environ | hub.environment())`.
        """
        self._running()
        home = Path(self._home.name if self._home is not None else "")
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": self.token,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_DATASETS_CACHE": str(home / "datasets"),
            "HF_MODULES_CACHE": str(home / "modules"),
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    # Who and what there is

    def add_user(
        self, name: str, *, role: Literal["write", "read"] = "write", organizations: tuple[str, ...] = ()
    ) -> str:
        """A new token for someone: to write to their own repositories and their organizations', or only to read."""
        token = f"hf_{secrets.token_hex(17)}"
        self._api.users[token] = User(name, token, role, organizations)
        return token

    def add_model(self, repo_id: str, files: str | Path | Contents, *, private: bool = False) -> str:
        """Puts a folder, or contents by path, into a new or existing model; gives the commit's id back."""
        return self._add("model", repo_id, files, private)

    def add_dataset(self, repo_id: str, files: str | Path | Contents, *, private: bool = False) -> str:
        """Puts a folder, or contents by path, into a new or existing data set; gives the commit's id back."""
        return self._add("dataset", repo_id, files, private)

    def _add(self, repo_type: RepoType, repo_id: str, files: str | Path | Contents, private: bool) -> str:
        with self._running().lock:
            if (repo_type, repo_id) not in self._api.repos:
                author = repo_id.split("/")[0]
                made = new_repo(repo_id, repo_type, self._api.clock, private=private, author=author)
                self._api.repos[repo_type, repo_id] = made
            contents = files if isinstance(files, Mapping) else _read_folder(Path(files))
            return self.commit(repo_id, contents, repo_type=repo_type, title="Upload files")

    def commit(
        self,
        repo_id: str,
        files: Contents,
        *,
        repo_type: RepoType = "model",
        revision: str = "main",
        title: str = "Update files",
        author: str | None = None,
    ) -> str:
        """Commits contents by path, as someone else would; None removes a file. Gives the commit's id back."""
        with self._running().lock:
            repo = self.repo(repo_id, repo_type)
            now = dict(repo.at(revision).files)
            for path, content in files.items():
                if content is None:
                    del now[path]
                else:
                    now[path] = repo.blob(path, content.encode() if isinstance(content, str) else bytes(content))
            return repo.commit(repo.ref_of(revision) or MAIN, now, author=author or repo.owner, title=title).oid

    def repo(self, repo_id: str, repo_type: RepoType = "model") -> Repo:
        """Everything about one repository.

        Raises:
            KeyError: there is none of that name.
        """
        return self._api.repos[repo_type, repo_id]

    def exists(self, repo_id: str, repo_type: RepoType = "model") -> bool:
        """Whether there is a repository of that name."""
        return (repo_type, repo_id) in self._api.repos

    def head(self, repo_id: str, repo_type: RepoType = "model", revision: str = "main") -> str:
        """The id of the newest commit of a branch, or of `refs/pr/N`."""
        return self.repo(repo_id, repo_type).at(revision).oid

    def files(self, repo_id: str, repo_type: RepoType = "model", revision: str = "main") -> dict[str, bytes]:
        """What the repository holds at a revision: contents by path, files in LFS too."""
        return {path: blob.content for path, blob in self.repo(repo_id, repo_type).at(revision).files.items()}

    def read(self, repo_id: str, path: str, repo_type: RepoType = "model", revision: str = "main") -> bytes:
        """The content of one file.

        Raises:
            KeyError: it is not there.
        """
        return self.files(repo_id, repo_type, revision)[path]

    def commits(self, repo_id: str, repo_type: RepoType = "model", revision: str = "main") -> tuple[Commit, ...]:
        """The commits of a revision, newest first."""
        repo = self.repo(repo_id, repo_type)
        return tuple(repo.history(repo.at(revision)))

    def pull_requests(self, repo_id: str, repo_type: RepoType = "model") -> tuple[Discussion, ...]:
        """The pull requests of a repository, oldest first, whatever their status."""
        return tuple(one for one in self.repo(repo_id, repo_type).discussions if one.base is not None)

    def rename(self, old: str, new: str, repo_type: RepoType = "model") -> None:
        """Renames a repository; requests to the old name are sent on (307), as the Hub does."""
        with self._running().lock:
            repo = self._api.repos.pop((repo_type, old))
            repo.repo_id = new
            self._api.repos[repo_type, new] = repo
            self._api.renamed[repo_type, old] = new

    def disable_pull_requests(self, repo_id: str, repo_type: RepoType = "model") -> None:
        """Switches discussions and pull requests off: opening one is refused (403)."""
        self.repo(repo_id, repo_type).discussions_enabled = False

    def store_as_lfs(self, repo_id: str, path: str = "README.md", repo_type: RepoType = "model") -> str:
        """Commits a file that is there as an LFS file, and has it stay one; gives the commit's id back."""
        with self._running().lock:
            repo = self.repo(repo_id, repo_type)
            repo.lfs_paths.add(path)
            files = repo.at("main").files
            now = {**files, path: Blob(files[path].content, lfs=True)}
            return repo.commit(MAIN, now, author=repo.owner, title=f"Store {path} as LFS").oid

    # What was asked

    def requests(self, route: str | None = None) -> tuple[SeenRequest, ...]:
        """The requests so far in the order of their answers; with `route`, those to one endpoint."""
        return tuple(seen for seen in tuple(self._running().seen) if route in (None, seen.route))

    # What goes wrong

    def strike(self, fault: Fault) -> None:
        """Has a fault strike, after those that were asked for before."""
        with self._running().lock:
            self._running().faults.add(fault)

    def heal(self) -> None:
        """Has nothing more go wrong."""
        with self._running().lock:
            self._running().faults.clear()

    def fail(
        self,
        route: str = "*",
        *,
        status: int = 503,
        times: int | None = None,
        after: int = 0,
        message: str = "Unavailable",
    ) -> None:
        """Refuses requests with a status (503, 401, 403, ...), for good or so many times."""
        self.strike(Fault(route, after=after, times=times, status=status, message=message))

    def rate_limit(self, route: str = "*", *, wait_s: int = 1, times: int = 1, header: str = "RateLimit") -> None:
        """Answers 429 and says how long to wait, by the header `RateLimit` or `Retry-After`."""
        value = f'"api";r=0;t={wait_s}' if header == "RateLimit" else str(wait_s)
        self.strike(Fault(route, times=times, status=429, message="Too many requests", headers={header: value}))

    def drop_response(self, route: str = "commit", *, times: int = 1, after: int = 0) -> None:
        """Does what is asked and hangs up without an answer."""
        self.strike(Fault(route, times=times, after=after, ending="drop"))

    def cut_response(self, route: str = "resolve", *, times: int | None = 1) -> None:
        """Hangs up in the middle of the body."""
        self.strike(Fault(route, method="GET", times=times, ending="cut"))

    def slow_down(self, route: str = "*", *, delay_s: float, times: int | None = None) -> None:
        """Waits before each answer."""
        self.strike(Fault(route, times=times, delay_s=delay_s))

    def rival_commit(
        self, repo_id: str, files: Contents, *, before: str = "commit", times: int | None = 1, revision: str = "main"
    ) -> None:
        """Has someone else commit `files` just before a request to an endpoint is looked at."""

        def strike() -> object:
            return self.commit(repo_id, files, revision=revision, title="Rival commit", author="rival")

        self.before(before, strike, times=times)

    def before(self, route: str, action: Callable[[], object], *, times: int | None = 1) -> None:
        """Has something happen just before a request to an endpoint is looked at."""
        self.strike(Fault(route, times=times, before=action))

    def reject_metadata(self, message: str, *, times: int | None = None) -> None:
        """Has the check of a card's metadata find this error, whatever the card says."""
        body = _metadata_body(errors=[message])
        headers = {"Content-Type": "application/json"}
        self.strike(Fault("validate-yaml", times=times, status=400, body=body, headers=headers))

    def warn_of_metadata(self, message: str, *, times: int | None = None) -> None:
        """Has the check of a card's metadata give this warning, whatever the card says."""
        body = _metadata_body(warnings=[message])
        headers = {"Content-Type": "application/json"}
        self.strike(Fault("validate-yaml", times=times, status=200, body=body, headers=headers))


def _metadata_body(errors: list[str] | None = None, warnings: list[str] | None = None) -> bytes:
    messages = {"errors": errors or [], "warnings": warnings or []}
    return json.dumps({key: [{"message": text} for text in texts] for key, texts in messages.items()}).encode()


def _read_folder(folder: Path) -> dict[str, bytes | str | None]:
    """Contents by path of the files under `folder`, without what git and huggingface_hub keep beside them."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and parts[0] not in (".git", ".cache"):
            found["/".join(parts)] = path.read_bytes()
    return found
