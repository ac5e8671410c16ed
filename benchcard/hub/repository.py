"""A model repository on the Hub: read at one commit, and changed by one commit.

Leaves the order of requests in a push to `push`, and the choice of the files to send to `overwrite`.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, errors

from benchcard._version import __version__
from benchcard.errors import CardError, HubError
from benchcard.hub import faults
from benchcard.hub.faults import RetryPolicy, Token
from benchcard.hub.files import README, Snapshot, Upload, decode_readme, encode_readme, make_upload
from benchcard.hub.gitignore import GITIGNORE, is_ignored
from benchcard.hub.overwrite import OverwritePolicy, Selection, select_uploads

T = TypeVar("T")
RenderReadme = Callable[[str | None, Collection[str]], str]
"""Returns the README to push, given the text of the present one (None where there is none) and the paths of all files
in the repository."""

# The titles of benchcard's commits and pull requests begin with this; the user's open pull request is found by it.
MESSAGE_PREFIX: Final = "benchcard: "
_UNKNOWN_ID: Final = "unknown"


class NoRepositoryError(HubError):
    """The repository for a pull request does not exist."""


@dataclass(frozen=True)
class Target:
    """Where a push goes: a branch (None is the main one), or a pull request onto it.

    `pr_url` and `pr_revision` are the address and the git reference of an open pull request.
    """

    branch: str | None
    as_pull_request: bool = False
    pr_url: str | None = None
    pr_revision: str | None = None

    @property
    def revision(self) -> str | None:
        """The revision to read and to commit to."""
        return self.pr_revision or self.branch

    @property
    def opens_pull_request(self) -> bool:
        """Whether the commit opens a new pull request."""
        return self.as_pull_request and self.pr_revision is None


def read_readme(
    repo_id: str, *, token: Token = None, endpoint: str | None = None, retry_policy: RetryPolicy | None = None
) -> str | None:
    """Return the text of a model repository's README; None where it has none.

    Raises:
        HubError: The repository does not exist, or its README could not be read.
    """
    repository = Repository(make_api(endpoint, token), repo_id, retry_policy or RetryPolicy())
    return decode_readme(repository.read_existing().readme, repo_id)


def read_file(
    repo_id: str,
    path: str,
    *,
    token: Token = None,
    endpoint: str | None = None,
    retry_policy: RetryPolicy | None = None,
) -> bytes | None:
    """Return the content of one small file of a model repository; None where it does not exist.

    Raises:
        HubError: The repository does not exist, or the file could not be read.
    """
    repository = Repository(make_api(endpoint, token), repo_id, retry_policy or RetryPolicy())
    return repository.read_file(repository.read_existing(), path)


def list_models(
    author: str, *, token: Token = None, endpoint: str | None = None, retry_policy: RetryPolicy | None = None
) -> list[str]:
    """Return the ids of the model repositories of a user or an organization that the token may see.

    Raises:
        HubError: There are none, or the Hub could not be reached.
    """
    api = make_api(endpoint, token)

    def read() -> list[str]:
        return sorted(model.id for model in api.list_models(author=author))

    if names := faults.call_with_retries(api, read, f"Listing the models of {author}", retry_policy or RetryPolicy()):
        return names
    raise HubError(
        f"{author} has no models on the Hub that this token may see: check the name of the user or organization. For "
        f"private models, {faults.LOGIN}."
    )


@dataclass(frozen=True)
class Repository:
    """The client of one repository, with the id `namespace/name`."""

    api: HfApi
    repo_id: str
    retry_policy: RetryPolicy

    def read_existing(self) -> Snapshot:
        """Return the main branch of the repository, which must exist."""
        snapshot = self.read(Target(None))
        if snapshot is None:
            problem = f"{self.repo_id} is not on the Hub, or it is private and this token may not see it"
            raise HubError(f"{problem}: {faults.LOGIN}.")
        return snapshot

    def read(self, target: Target, *, is_commit_lost: bool = False) -> Snapshot | None:
        """Return a snapshot; None without a repository. With `is_commit_lost`, errors say that a commit may exist."""
        try:
            return self._call(partial(self._read, target.revision), f"Reading {self.repo_id}")
        except HubError as error:
            if not is_commit_lost:
                raise
            message = f"{error}\nWhether the commit was made is unknown. Push again: the push checks before it writes."
            raise HubError(message) from None

    def _call(self, action: Callable[[], T], purpose: str) -> T:
        return faults.call_with_retries(self.api, action, purpose, self.retry_policy)

    def _read(self, revision: str | None) -> Snapshot | None:
        try:
            info = self.api.model_info(self.repo_id, revision=revision, files_metadata=True, timeout=60.0)
        except errors.RepositoryNotFoundError as error:
            # For a repository that does not exist the Hub answers 401 without a token, and 404 with one.
            is_refused = error.response.status_code == 401 and faults.token_in_use(self.api.token)
            if is_refused or isinstance(error, errors.GatedRepoError):
                raise
            return None
        sha, files = info.sha, info.siblings
        if not isinstance(sha, str) or files is None:
            raise ValueError(f"it does not name the commit and the files of {self.repo_id}")
        # The content of a file that is listed without an id is not known: it counts as different from any upload.
        blob_ids = {file.rfilename: file.blob_id or _UNKNOWN_ID for file in files}
        lfs_ids = {file.rfilename: file.lfs.sha256 for file in files if file.lfs is not None}
        readme = self._download(info.id, sha, README)
        snapshot = Snapshot(info.id, sha, readme, blob_ids, lfs_ids)
        if README in blob_ids:
            if readme is None:
                raise ValueError(f"{README} is listed, but the Hub does not return it")
            has_id = blob_ids[README] != _UNKNOWN_ID or README in lfs_ids
            if has_id and not snapshot.has(make_upload(README, readme)):
                raise ValueError(f"the downloaded {README} does not match its id on the Hub")
        return snapshot

    def read_file(self, snapshot: Snapshot, path: str) -> bytes | None:
        """Return the content of a small file at the commit of a snapshot; None where it does not exist."""
        if path not in snapshot.paths:
            return None
        action = partial(self._download, snapshot.repo_id, snapshot.sha, path)
        return self._call(action, f"Reading {path} of {self.repo_id}")

    def _download(self, repo_id: str, sha: str, path: str) -> bytes | None:
        """Download a file at a commit, past the cache; None only where the Hub says that the file does not exist."""
        with tempfile.TemporaryDirectory(prefix="benchcard-") as folder:
            try:
                file = self.api.hf_hub_download(repo_id, path, revision=sha, local_dir=folder, force_download=True)
            except errors.RemoteEntryNotFoundError:
                return None
            return Path(file).read_bytes()

    def select(
        self, snapshot: Snapshot | None, render: RenderReadme, uploads: Sequence[Upload], policy: OverwritePolicy
    ) -> Selection:
        """Return the files to send; the README is one of them.

        Raises:
            CardError: The card cannot be merged into the present README.
            HubError: A file must not be overwritten, or the repository could not be read.
        """
        if snapshot is None:
            return Selection([encode_readme(render(None, frozenset())), *uploads])
        rules = (self.read_file(snapshot, GITIGNORE) or b"").decode("utf-8", "replace")
        try:
            text = decode_readme(snapshot.readme, self.repo_id)
            uploads = [encode_readme(render(text, snapshot.paths)), *uploads]
            ignored = []
        except (CardError, HubError):
            # An ignored README is not sent, so it may be one that cannot be merged.
            if not is_ignored(README, rules):
                raise
            ignored = [README]
        manifests = {path: self.read_file(snapshot, path) for path in _manifests(snapshot, policy.manifest)}
        own = manifests.pop(policy.manifest, None)
        selection = select_uploads(snapshot, uploads, policy, own, rules, manifests.values())
        return replace(selection, ignored=[*ignored, *selection.ignored])

    def create(self, private: bool) -> None:
        """Create the repository; one that someone created in the meantime stays as it is."""
        action = partial(self.api.create_repo, self.repo_id, private=private, exist_ok=True)
        self._call(action, f"Creating {self.repo_id}")

    def commit(
        self, snapshot: Snapshot, target: Target, selection: Selection, message: str
    ) -> tuple[CommitInfo, list[str]]:
        """Commit a selection on top of a snapshot, and return the commit and the Hub's warnings about the card."""
        added = [upload for upload in selection.uploads if not snapshot.has(upload)]
        operations = [
            *(CommitOperationAdd(upload.path, upload.source) for upload in added),
            *(CommitOperationDelete(path) for path in selection.removed),
        ]
        # The client reports the Hub's warnings about metadata, among others, as Python warnings.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            action = partial(
                self.api.create_commit,
                snapshot.repo_id,
                operations,
                commit_message=message,
                revision=target.revision,
                create_pr=target.opens_pull_request,
                parent_commit=snapshot.sha,
            )
            commit = faults.call_hub(self.api, action)
        if not isinstance(commit.oid, str):
            raise faults.UnexpectedAnswerError(
                f"The answer to the commit has {commit.oid!r} in place of the commit's id."
            )
        texts = [str(warning.message) for warning in caught]
        lists = [text.split("\n- ")[1:] for text in texts if text.startswith("Warnings while validating metadata")]
        return commit, [line for lines in lists for line in lines]

    def find_missing(self, before: Snapshot, target: Target, uploads: Sequence[Upload]) -> list[str]:
        """Return the paths of files that a commit onto `before` lacks because its `.gitignore` excludes them."""
        if GITIGNORE not in before.paths:
            return []
        try:
            snapshot = self.read(target)
        except HubError:
            # The commit exists, and the next push checks again.
            return []
        return [upload.path for upload in uploads if snapshot is None or not snapshot.has(upload)]

    def find_pull_request(self, branch: str | None, refusal: faults.Diagnosis | None = None) -> Target:
        """Return the user's open pull request that benchcard made; without one, a target whose commit opens a new one.

        If a commit to the branch itself was refused, an error begins with that `refusal`.
        """
        try:
            action = partial(self._find_pull_request, branch)
            return self._call(action, f"Looking for your pull request on {self.repo_id}")
        except HubError as error:
            if refusal is None or isinstance(error, NoRepositoryError):
                raise
            raise HubError(f"{refusal.text}\n{error}") from None

    def _find_pull_request(self, branch: str | None) -> Target:
        if faults.token_in_use(self.api.token) is None:
            raise errors.LocalTokenNotFoundError
        user, base = self.api.whoami()["name"], branch or "main"
        if not isinstance(user, str):
            raise ValueError("it names no user")
        try:
            own = partial(self.api.get_repo_discussions, self.repo_id, author=user)
            pulls = list(own(discussion_type="pull_request", discussion_status="open"))
        except errors.RepositoryNotFoundError:
            raise NoRepositoryError(
                f"{self.repo_id} is not on the Hub, or this token may not see it, and a pull request needs an existing "
                "repository: check its name, or push without `create_pr`, which creates the repository."
            ) from None
        for pull in pulls:
            if pull.author == user and pull.title.startswith(MESSAGE_PREFIX):
                pull_base = self.api.get_discussion_details(self.repo_id, pull.num).target_branch
                if pull_base in (base, f"refs/heads/{base}"):
                    return Target(branch, True, pull.url, pull.git_reference)
        return Target(branch, True)

    def find_complete_pull_request(
        self, branch: str | None, render: RenderReadme, uploads: Sequence[Upload], policy: OverwritePolicy
    ) -> Target | None:
        """Return the user's open pull request that already contains all of a push; None where there is none."""
        try:
            target = self.find_pull_request(branch)
            snapshot = None if target.opens_pull_request else self.read(target)
            if snapshot is None:
                return None
            selection = self.select(snapshot, render, uploads, policy)
        except (CardError, HubError):
            # It cannot be read, or one of its files must not be replaced: it does not contain the push.
            return None
        return target if selection.uploads and selection.is_in(snapshot) else None

    def find_commit(self, snapshot: Snapshot, before: Snapshot, target: Target, message: str) -> str:
        """Return the id of the newest commit since `before` with `message`: the commit whose answer was lost."""
        action = partial(self.api.list_repo_commits, snapshot.repo_id, revision=target.revision)
        try:
            commits = faults.call_hub(self.api, action)
        except faults.CLIENT_ERRORS:
            # The pushed content is there, so the push succeeds even if its exact commit is not known.
            return snapshot.sha
        new = takewhile(lambda commit: commit.commit_id != before.sha, commits)
        return next((commit.commit_id for commit in new if commit.title == message), snapshot.sha)


def _manifests(snapshot: Snapshot, manifest: str) -> list[str]:
    """Return the paths of all manifests in a repository: files of the same name, in folders beside that of this one."""
    own = PurePosixPath(manifest)
    pattern = f"{own.parent.parent}/*/{own.name}"
    return [path for path in sorted(snapshot.paths) if manifest and PurePosixPath(path).match(pattern)]


def make_api(endpoint: str | None, token: Token) -> HfApi:
    """Return the client of an endpoint; None is the default endpoint of huggingface_hub."""
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise HubError(f"An endpoint begins with https:// or http://, found {endpoint!r}.")
    return HfApi(endpoint=endpoint, token=token, library_name="benchcard", library_version=__version__)
