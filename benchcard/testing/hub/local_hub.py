"""`LocalHub`: a Hugging Face Hub for tests, in memory and on the loopback interface.

Owns the interface for tests: repositories, users, faults, and the record of requests. Its state ends with the `with`
block.

    with LocalHub() as hub:
        hub.add_model("someone/tiny-vit", "folder/with/config.json")
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        hub.fail("commit", status=503)
        ...
        assert hub.read("someone/tiny-vit", "README.md") == b"..."

huggingface_hub reads its endpoint once, at its import. Code that takes an endpoint and a token can run in the same
process; other code (`transformers`, `datasets`) must run in a child process with `environment()`. This Hub supports LFS
but not Xet, which huggingface_hub 2 uses for large files unless `HF_HUB_DISABLE_XET=1` is set before its import.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from benchcard.testing.hub.api import ACCOUNT_ROUTES, HubApi, User
from benchcard.testing.hub.http import Fault, HubServer, SeenRequest
from benchcard.testing.hub.jobs import Jobs
from benchcard.testing.hub.pulls import PULL_ROUTES
from benchcard.testing.hub.read import READ_ROUTES
from benchcard.testing.hub.store import MAIN, Blob, Commit, Discussion, Repo
from benchcard.testing.hub.write import WRITE_ROUTES

RepoType = Literal["model", "dataset"]
Contents = Mapping[str, "bytes | str | None"]


class LocalHub:
    """A Hub on a free port of 127.0.0.1, inside a `with` block.

    Attributes:
        user: The name of its first user, who owns the repositories under this name.
        token: The token of this user, with the role "write".
        endpoint: The address, for `HF_ENDPOINT` and `HfApi(endpoint=)`.
        jobs: Hugging Face Jobs, whose buckets and logs are in the folder `jobs`; None where no folder is given.
    """

    def __init__(self, user: str = "local-user", jobs: Path | None = None) -> None:
        self.user = user
        self.jobs = None if jobs is None else Jobs(jobs)
        routes = [*ACCOUNT_ROUTES, *READ_ROUTES, *WRITE_ROUTES, *PULL_ROUTES, *(self.jobs.routes if self.jobs else ())]
        self._api = HubApi(routes)
        self.token = self.add_user(user)
        self._server: HubServer | None = None

    def __enter__(self) -> LocalHub:
        self._server = HubServer(self._api)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        server = self._running()
        if self.jobs is not None:
            self.jobs.close()
        server.stop()
        if server.failures and error is None:
            raise RuntimeError("LocalHub itself failed while it handled a request") from server.failures[0]

    def _running(self) -> HubServer:
        if self._server is None:
            raise RuntimeError("LocalHub runs only inside its `with` block")
        return self._server

    @property
    def endpoint(self) -> str:
        """The address, such as `http://127.0.0.1:PORT`."""
        self._running()
        return self._api.endpoint

    def environment(self) -> dict[str, str]:
        """Return environment variables that make a child process use this Hub and caches that are deleted with it.

        They have no effect after the import of huggingface_hub: `subprocess.run(..., env=os.environ |
        hub.environment())`.
        """
        home = Path(self._running().home.name)
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

    # Users and repositories

    def add_user(
        self, name: str, *, role: Literal["write", "read"] = "write", organizations: tuple[str, ...] = ()
    ) -> str:
        """Add a token for a user, who may write to their own and their organizations' repositories, and return it."""
        token = f"hf_{secrets.token_hex(17)}"
        self._api.users[token] = User(name, role, organizations)
        return token

    def add_model(self, repo_id: str, files: str | Path | Contents, *, private: bool = False) -> str:
        """Commit a folder, or contents by path, to a new or existing model, and return the id of the commit."""
        return self._add("model", repo_id, files, private)

    def add_dataset(self, repo_id: str, files: str | Path | Contents, *, private: bool = False) -> str:
        """Commit a folder, or contents by path, to a new or existing data set, and return the id of the commit."""
        return self._add("dataset", repo_id, files, private)

    def _add(self, repo_type: RepoType, repo_id: str, files: str | Path | Contents, private: bool) -> str:
        with self._api.lock:
            if (repo_type, repo_id) not in self._api.repos:
                self._api.add_repo(repo_id, repo_type, private=private, author=repo_id.split("/")[0])
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
        """Commit contents by path, as another user would, and return the id of the commit; None deletes a file."""
        with self._api.lock:
            repo = self.repo(repo_id, repo_type)
            present = dict(repo.at(revision).files)
            for path, content in files.items():
                if content is None:
                    del present[path]
                else:
                    data = content.encode() if isinstance(content, str) else content
                    present[path] = Blob(data, repo.goes_to_lfs(path, data[:512], len(data)))
            return repo.commit(repo.ref_of(revision) or MAIN, present, author=author or repo.owner, title=title).oid

    def repo(self, repo_id: str, repo_type: RepoType = "model") -> Repo:
        """Return one repository; a KeyError where it does not exist."""
        return self._api.repos[repo_type, repo_id]

    def exists(self, repo_id: str, repo_type: RepoType = "model") -> bool:
        """Return whether a repository exists."""
        return (repo_type, repo_id) in self._api.repos

    def head(self, repo_id: str, repo_type: RepoType = "model", revision: str = "main") -> str:
        """Return the id of the newest commit of a branch, or of `refs/pr/N`."""
        return self.repo(repo_id, repo_type).at(revision).oid

    def files(self, repo_id: str, repo_type: RepoType = "model", revision: str = "main") -> dict[str, bytes]:
        """Return the contents of all files at a revision by path, with those in LFS."""
        return {path: blob.content for path, blob in self.repo(repo_id, repo_type).at(revision).files.items()}

    def read(self, repo_id: str, path: str, repo_type: RepoType = "model", revision: str = "main") -> bytes:
        """Return the content of one file; a KeyError where it does not exist."""
        return self.files(repo_id, repo_type, revision)[path]

    def commits(self, repo_id: str, repo_type: RepoType = "model", revision: str = "main") -> tuple[Commit, ...]:
        """Return the commits of a revision, newest first."""
        repo = self.repo(repo_id, repo_type)
        return tuple(repo.history(repo.at(revision)))

    def pull_requests(self, repo_id: str, repo_type: RepoType = "model") -> tuple[Discussion, ...]:
        """Return the pull requests of a repository, open or not, oldest first."""
        return tuple(pull for pull in self.repo(repo_id, repo_type).discussions if pull.base is not None)

    def rename(self, old: str, new: str, repo_type: RepoType = "model") -> None:
        """Rename a repository; requests to the old name are redirected (307), as on the Hub."""
        with self._api.lock:
            repo = self._api.repos.pop((repo_type, old))
            repo.repo_id = new
            self._api.repos[repo_type, new] = repo
            self._api.renamed[repo_type, old] = new

    def disable_pull_requests(self, repo_id: str, repo_type: RepoType = "model") -> None:
        """Disable discussions and pull requests: opening one is refused (403)."""
        self.repo(repo_id, repo_type).discussions_enabled = False

    def store_as_lfs(self, repo_id: str, path: str = "README.md", repo_type: RepoType = "model") -> str:
        """Move an existing file to LFS, also for later commits, and return the id of the commit."""
        with self._api.lock:
            repo = self.repo(repo_id, repo_type)
            repo.lfs_paths.add(path)
            files = repo.at("main").files
            present = {**files, path: Blob(files[path].content, lfs=True)}
            return repo.commit(MAIN, present, author=repo.owner, title=f"Store {path} as LFS").oid

    # Requests

    def requests(self, route: str | None = None) -> tuple[SeenRequest, ...]:
        """Return the requests in the order of their replies; with `route`, those to one endpoint."""
        return tuple(seen for seen in tuple(self._running().seen) if route in (None, seen.route))

    # Faults

    def strike(self, fault: Fault) -> None:
        """Add a fault after the others."""
        with self._api.lock:
            self._running().faults.append((fault, fault.effects()))

    def heal(self) -> None:
        """Remove all faults."""
        with self._api.lock:
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
        """Refuse requests with a status (503, 401, 403, ...), always or a number of times."""
        self.strike(Fault(route, after=after, times=times, status=status, message=message))

    def rate_limit(self, route: str = "*", *, wait_s: int = 1, times: int = 1, header: str = "RateLimit") -> None:
        """Reply 429 with the time to wait in the header `RateLimit` or `Retry-After`."""
        value = f'"api";r=0;t={wait_s}' if header == "RateLimit" else str(wait_s)
        self.strike(Fault(route, times=times, status=429, message="Too many requests", headers={header: value}))

    def drop_response(self, route: str = "commit", *, times: int = 1, after: int = 0) -> None:
        """Handle requests and close the connection without a reply."""
        self.strike(Fault(route, times=times, after=after, ending="drop"))

    def cut_response(self, route: str = "resolve", *, times: int | None = 1) -> None:
        """Close the connection in the middle of the body."""
        self.strike(Fault(route, method="GET", times=times, ending="cut"))

    def slow_down(self, route: str = "*", *, delay_s: float, times: int | None = None) -> None:
        """Wait before each reply."""
        self.strike(Fault(route, times=times, delay_s=delay_s))

    def rival_commit(
        self, repo_id: str, files: Contents, *, before: str = "commit", times: int | None = 1, revision: str = "main"
    ) -> None:
        """Commit `files` as another user just before a request to an endpoint is handled."""
        commit = partial(self.commit, repo_id, files, revision=revision, title="Rival commit", author="rival")
        self.before(before, commit, times=times)

    def before(self, route: str, action: Callable[[], object], *, times: int | None = 1) -> None:
        """Call a function just before a request to an endpoint is handled."""
        self.strike(Fault(route, times=times, before=action))

    def reject_metadata(self, message: str, *, times: int | None = None) -> None:
        """Let the check of a card's metadata return this error for any card."""
        body = json.dumps({"errors": [{"message": message}], "warnings": []}).encode()
        self.strike(Fault("validate-yaml", times=times, status=400, body=body))

    def warn_of_metadata(self, message: str, *, times: int | None = None) -> None:
        """Let the check of a card's metadata return this warning for any card."""
        body = json.dumps({"errors": [], "warnings": [{"message": message}]}).encode()
        self.strike(Fault("validate-yaml", times=times, status=200, body=body))


def _read_folder(folder: Path) -> Contents:
    """Return the contents of the files under a folder by path, without the files of git and huggingface_hub."""
    files = {file.relative_to(folder): file for file in sorted(folder.rglob("*")) if file.is_file()}
    hidden = (".git", ".cache")
    return {path.as_posix(): file.read_bytes() for path, file in files.items() if path.parts[0] not in hidden}
