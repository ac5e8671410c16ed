"""A model repository on the Hub, read at one commit and written by one commit."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    LocalTokenNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from benchcard._version import __version__
from benchcard.errors import CardError, HubError
from benchcard.hub.faults import (
    CLIENT_ERRORS,
    LOGIN,
    Diagnosis,
    Patience,
    UnexpectedAnswerError,
    ask,
    persist,
    token_in_use,
)
from benchcard.hub.files import README, Remote, Upload, card_upload, text_of, upload_of
from benchcard.hub.guard import IGNORE, Guard, claimed, is_ignored, without_conflicts

T = TypeVar("T")

# Every commit and pull request of benchcard begins with this: by it, and by the author, an own pull request is known.
MESSAGE_PREFIX: Final = "benchcard: "
_INFO_TIMEOUT_S: Final = 60.0
_UNKNOWN: Final = "unknown"


class NoRepositoryError(HubError):
    """There is no repository that a pull request could be opened in."""


@dataclass(frozen=True)
class Target:
    """Where a push goes: a branch (None is the main one), a pull request to be opened onto it, or an open one."""

    branch: str | None
    as_pull_request: bool = False
    pr_url: str | None = None
    pr_revision: str | None = None

    @property
    def revision(self) -> str | None:
        """What is read, and committed on."""
        return self.pr_revision or self.branch

    @property
    def opens_one(self) -> bool:
        """Whether the commit opens a pull request."""
        return self.as_pull_request and self.pr_revision is None


def read_readme(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
    patience: Patience | None = None,
) -> str | None:
    """The text of a model repository's README; None where it has none.

    Raises:
        HubError: the repository is not there, or its README could not be read.
    """
    remote = Repository(api_of(endpoint, token), repo_id, patience or Patience()).read(Target(revision))
    if remote is None:
        raise HubError(f"{repo_id} is not on the Hub, or this token may not see it: {LOGIN}, if it is private.")
    return text_of(remote.readme, repo_id)


def read_file(
    repo_id: str,
    path: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
    patience: Patience | None = None,
) -> bytes | None:
    """The content of one small file of a model repository; None where it is not there.

    Raises:
        HubError: the repository is not there, or the file could not be read.
    """
    hub = Repository(api_of(endpoint, token), repo_id, patience or Patience())
    remote = hub.read(Target(revision))
    if remote is None:
        raise HubError(f"{repo_id} is not on the Hub, or this token may not see it: {LOGIN}, if it is private.")
    return hub.content(remote, path)


@dataclass(frozen=True)
class Repository:
    """One conversation with the Hub about one repository."""

    api: HfApi
    repo_id: str
    patience: Patience

    def read(self, place: Target, *, unsure: bool = False) -> Remote | None:
        """What is there now; None where the repository is not. `unsure`: a commit was sent whose answer was lost."""
        try:
            return self._persist(partial(self._read, place.revision), f"Reading {self.repo_id}")
        except HubError as error:
            if not unsure:
                raise
            failure = f"{error}\nWhether the commit was made is not known: the same push looks before it writes again."
        raise HubError(failure)

    def _persist(self, action: Callable[[], T], what: str) -> T:
        return persist(action, what, self.patience, self.api.endpoint, self.api.token)

    def _read(self, revision: str | None) -> Remote | None:
        try:
            info = self.api.model_info(self.repo_id, revision=revision, files_metadata=True, timeout=_INFO_TIMEOUT_S)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError as error:
            # Who has no token gets 401 for a repository that is not there, and who has one gets 404.
            if error.response.status_code == 401 and token_in_use(self.api.token):
                raise
            return None
        sha, files = info.sha, info.siblings
        if not isinstance(sha, str) or files is None:
            raise ValueError(f"it does not name the commit and the files of {self.repo_id}")
        # What is listed without an id is there, and equal to nothing that is pushed.
        blob_ids = {file.rfilename: file.blob_id or _UNKNOWN for file in files}
        lfs_ids = {file.rfilename: file.lfs.sha256 for file in files if file.lfs is not None}
        remote = Remote(info.id, sha, self._read_file(info.id, sha, README), blob_ids, lfs_ids)
        if any(file.rfilename == README for file in files):
            if remote.readme is None:
                raise ValueError(f"{README} is listed, but the Hub does not hand it out")
            if (blob_ids[README] != _UNKNOWN or README in lfs_ids) and not remote.has(upload_of(README, remote.readme)):
                raise ValueError(f"{README} did not arrive as the Hub holds it")
        return remote

    def card(self, remote: Remote | None, card: Callable[[str | None, Collection[str]], str]) -> list[Upload]:
        """The README that shall be; none where it cannot be made of the one there, and a `.gitignore` keeps it out."""
        try:
            readme = None if remote is None else text_of(remote.readme, self.repo_id)
            return [card_upload(card(readme, frozenset() if remote is None else remote.paths))]
        except (CardError, HubError):
            if remote is None or not is_ignored(README, self.rules(remote)):
                raise
            return []

    def settled(
        self, remote: Remote | None, uploads: list[Upload], guard: Guard
    ) -> tuple[list[Upload], list[str], list[str]]:
        """The files that are sent, why others are left as they are, and what is kept out; see `hub_guard`."""
        if remote is None:
            return uploads, [], []
        ours = claimed(self.content(remote, guard.manifest))
        sent, left, out = without_conflicts(remote, uploads, guard, ours, self.rules(remote))
        return sent, left, out if any(upload.path == README for upload in uploads) else [README, *out]

    def rules(self, remote: Remote) -> str:
        """The `.gitignore` there; empty where there is none."""
        return (self.content(remote, IGNORE) or b"").decode("utf-8", "replace")

    def content(self, remote: Remote, path: str) -> bytes | None:
        """A small file at the commit that was read; None where it is not there."""
        if path not in remote.paths:
            return None
        action = partial(self._read_file, remote.repo_id, remote.sha, path)
        return self._persist(action, f"Reading {path} of {self.repo_id}")

    def _read_file(self, repo_id: str, sha: str, name: str) -> bytes | None:
        """A file at that very commit, past every cache; None only where the Hub says that there is none."""
        with tempfile.TemporaryDirectory(prefix="benchcard-") as folder:
            try:
                path = self.api.hf_hub_download(repo_id, name, revision=sha, local_dir=folder, force_download=True)
            except RemoteEntryNotFoundError:
                return None
            return Path(path).read_bytes()

    def create(self, private: bool) -> None:
        """Makes the repository; one that somebody made meanwhile is taken as it is."""
        action = partial(self.api.create_repo, self.repo_id, private=private, exist_ok=True)
        self._persist(action, f"Creating {self.repo_id}")

    def commit(
        self, remote: Remote, place: Target, uploads: list[Upload], message: str, description: str
    ) -> tuple[CommitInfo, list[str]]:
        """One commit on top of what was read, and what the Hub says about the card."""
        # The client says through warnings what the Hub says of the metadata, and some things of its own.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = ask(
                partial(
                    self.api.create_commit,
                    remote.repo_id,
                    [CommitOperationAdd(upload.path, upload.source) for upload in uploads if not remote.has(upload)],
                    commit_message=message,
                    commit_description=description,
                    revision=place.revision,
                    create_pr=place.opens_one,
                    parent_commit=remote.sha,
                ),
                self.api.endpoint,
                self.api.token,
            )
        if not isinstance(made.oid, str):
            raise UnexpectedAnswerError(f"The answer to the commit names {made.oid!r}, which is none.")
        texts = [str(one.message) for one in caught]
        said = [text.split("\n- ")[1:] for text in texts if text.startswith("Warnings while validating metadata")]
        return made, [line for lines in said for line in lines]

    def missing(self, remote: Remote, place: Target, uploads: Sequence[Upload]) -> list[str]:
        """The paths of uploads that did not come with a commit onto `remote`, which its `.gitignore` may keep out."""
        if IGNORE not in remote.paths:
            return []
        try:
            now = self.read(place)
        except HubError:
            return []  # The commit is made, and the next push looks again.
        return [upload.path for upload in uploads if now is None or not now.has(upload)]

    def own_pull_request(self, branch: str | None, refused: Diagnosis | None = None) -> Target:
        """The place of an own pull request: the one that is open, or else one that the commit will open.

        Args:
            branch: the branch that it is onto; None is the main one.
            refused: why the branch itself is not written to, for the message.
        """
        try:
            action = partial(self._own_pull_request, branch)
            return self._persist(action, f"Looking for an own pull request on {self.repo_id}")
        except NoRepositoryError:
            raise
        except HubError as error:
            failure = f"{refused.text}\n{error}" if refused is not None else str(error)
        raise HubError(failure)

    def _own_pull_request(self, branch: str | None) -> Target:
        if token_in_use(self.api.token) is None:
            raise LocalTokenNotFoundError
        name, target = self.api.whoami()["name"], branch or "main"
        if not isinstance(name, str):
            raise ValueError("it names no user")
        try:
            pulls = list(
                self.api.get_repo_discussions(
                    self.repo_id, author=name, discussion_type="pull_request", discussion_status="open"
                )
            )
        except RepositoryNotFoundError:
            raise NoRepositoryError(
                f"{self.repo_id} is not on the Hub, or this token may not see it, and a pull request needs one that is "
                "there: check its name, or push without `create_pr`, which makes the repository."
            ) from None
        for pull in pulls:
            if pull.author == name and pull.title.startswith(MESSAGE_PREFIX):
                onto = self.api.get_discussion_details(self.repo_id, pull.num).target_branch
                if onto in (target, f"refs/heads/{target}"):
                    return Target(branch, True, pull.url, pull.git_reference)
        return Target(branch, True)

    def proposed(
        self,
        branch: Target,
        card: Callable[[str | None, Collection[str]], str],
        uploads: list[Upload],
        guard: Guard,
    ) -> Target:
        """Return the place of the own open pull request that holds all of a push; `branch` where none does."""
        try:
            place = self.own_pull_request(branch.branch)
            remote = None if place.opens_one else self.read(place)
            if remote is None:
                return branch
            everything, _, _ = self.settled(remote, [*self.card(remote, card), *uploads], guard)
        except (CardError, HubError):
            # It holds something else, or cannot be looked at: the push goes where it would go without it.
            return branch
        return place if everything and all(remote.has(upload) for upload in everything) else branch

    def find_commit(self, remote: Remote, before: Remote, place: Target, message: str) -> str:
        """The commit that was made though its answer was lost: the newest with this message since `before`."""
        try:
            list_commits = partial(self.api.list_repo_commits, remote.repo_id, revision=place.revision)
            commits = ask(list_commits, self.api.endpoint, self.api.token)
        except CLIENT_ERRORS:
            # What was pushed is there: its exact commit is not worth failing for.
            return remote.sha
        for commit in commits:
            if commit.commit_id == before.sha:
                break
            if commit.title == message:
                return commit.commit_id
        return remote.sha

    def commit_at(self, remote: Remote, oid: str) -> tuple[str, str]:
        """A commit and its address."""
        return oid, f"{self.api.endpoint}/{remote.repo_id}/commit/{oid}"


def api_of(endpoint: str | None, token: str | bool | None) -> HfApi:
    """Return the client of an endpoint; None is that of huggingface_hub.

    Raises:
        HubError: The endpoint is no address.
    """
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise HubError(f"An endpoint begins with https:// or http://, found {endpoint!r}.")
    return HfApi(endpoint=endpoint, token=token, library_name="benchcard", library_version=__version__)
