"""What reaches the Hub: one commit that holds a card and its files, or nothing.

The only module that writes to the Hub. Owns the push: reading the README that is there, guarding the commit with the
commit that it was made from, and the pull request where writing is not allowed. Leaves to `card` what a README says and
how a section is merged into it, which comes in as a function of the text that is there; to `hub_files` what changes; to
`hub_faults` what an error means. Everything goes through `huggingface_hub.HfApi`, with endpoint and token passed to it.

A README that could not be read is never written: it counts as absent only where the Hub itself says so. After every
fault the repository is read anew before anything is repeated, so that a commit whose answer was lost is found, and not
made twice.

Source: https://huggingface.co/docs/huggingface_hub/package_reference/hf_api (`create_commit` and its `parent_commit`).
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeVar

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    LocalTokenNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from benchcard._version import __version__
from benchcard.errors import CardError, HubError
from benchcard.hub_faults import (
    CLIENT_ERRORS,
    LOGIN,
    Diagnosis,
    Fault,
    Patience,
    UnexpectedAnswerError,
    ask,
    diagnose_commit,
    persist,
    token_in_use,
)
from benchcard.hub_files import README, Pushed, Remote, Upload, card_upload, difference, text_of, upload_of
from benchcard.hub_guard import IGNORE, Guard, claimed, is_ignored, kept_out, settled

T = TypeVar("T")

# Every commit and pull request of benchcard begins with this: by it, and by the author, an own pull request is known.
MESSAGE_PREFIX: Final = "benchcard: "
_INFO_TIMEOUT_S: Final = 60.0
_UNKNOWN: Final = "unknown"


class NoRepositoryError(HubError):
    """There is no repository that a pull request could be opened in."""


@dataclass(frozen=True)
class _Place:
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


def push(
    repo_id: str,
    files: Mapping[str, bytes | Path],
    card: Callable[[str | None, Collection[str]], str],
    *,
    create: bool = True,
    private: bool = True,
    create_pr: bool | Literal["auto"] = "auto",
    revision: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
    dry_run: bool = False,
    commit_message: str = "publish results",
    commit_description: str = "",
    patience: Patience | None = None,
    guard: Guard | None = None,
) -> Pushed:
    """What the Hub holds after one commit with the card and its files.

    Pushing the same again changes nothing and makes no commit. Nothing is ever half-written: a commit is whole or not
    there, and after any error the same call goes on where it is needed.

    Args:
        repo_id: the model repository, as `namespace/name`.
        files: contents, or files on this machine, by their path in the repository; the README is not among them.
        card: gets the text of the README that is there (None where there is none) and the paths of all files that are,
            and gives the text that shall be. It may be called several times, each time with what was read last.
        create: whether a repository that is not there is made.
        private: whether a repository that is made is private; one that is there stays as it is.
        create_pr: True pushes to a pull request, onto an own open one where there is one; "auto" does so only where
            this token may not write; False never.
        revision: the branch; None is the main one.
        token: of the Hub; None takes the one of `hf auth login`.
        endpoint: of the Hub; None takes huggingface_hub's.
        dry_run: shows what would change, and writes nothing.
        commit_message: the first line of the commit; `benchcard: ` is put before it.
        commit_description: more about it.
        patience: how often and how long faults that pass are waited out.
        guard: which files of the repository are not replaced, or only where benchcard wrote them.

    Raises:
        HubError: the Hub refused or could not be reached, the metadata are not valid, the README there could not be
            read, a file is not there, or one that is there is not to be replaced; the text says which, and whether
            anything was written.
    """
    if README in files:
        raise HubError(f"{README} is the card, and not among the files.")
    every_upload = [upload_of(path, source) for path, source in sorted(files.items())]
    patience, guard = patience or Patience(), guard or Guard()
    hub = _Hub(_api(endpoint, token), repo_id, patience)
    message = _message(commit_message)
    place = hub.own_pull_request(revision) if create_pr is True else _Place(revision)
    if create_pr == "auto":
        # A refusal may have made an earlier push a pull request, though the branch may be written to now.
        place = replace(hub, patience=replace(patience, attempts=1)).proposed(place, card, every_upload, guard)
    created, sent = False, 0
    fault: Diagnosis | None = None
    before_loss: Remote | None = None  # what was there before a commit whose answer was lost
    while True:
        remote = hub.read(place, unsure=before_loss is not None)
        everything, left, out = hub.settled(remote, [*hub.card(remote, card), *every_upload], guard)
        done = partial(_pushed, repo_id, remote, said=left, out=out)
        if remote is not None and all(remote.has(upload) for upload in everything):
            if before_loss is None:
                return done(place, hub.commit_at(remote, remote.sha), changed=False, diff="")
            found = hub.find_commit(remote, before_loss, place, message)
            return done(place, hub.commit_at(remote, found), changed=True, diff=difference(before_loss, everything))
        diff = difference(remote, everything)
        if remote is None and not create:
            raise HubError(f"{repo_id} is not on the Hub, or this token may not see it; `create` makes it.")
        if dry_run:
            return done(place, (None, None), changed=True, diff=diff)
        if remote is None:
            if created:
                raise HubError(f"{repo_id} was made, and the Hub does not show it yet: run the same push again.")
            hub.create(private)
            created = True
            continue
        if fault is not None and sent >= patience.attempts:
            raise HubError(_failure(repo_id, fault, place, create_pr))
        try:
            made, said = hub.commit(remote, place, everything, message, commit_description)
        except CLIENT_ERRORS as error:
            earlier, fault = fault, diagnose_commit(error, token)
        else:
            if place.opens_one:
                place = replace(place, pr_url=made.pr_url, pr_revision=made.pr_revision)
            told = {"said": [*said, *left], "out": [*out, *hub.missing(remote, place, everything)]}
            return done(place, (made.oid, made.commit_url), changed=made.oid != remote.sha, diff=diff, **told)
        sent += 1
        if fault.kind is Fault.FORBIDDEN and create_pr == "auto" and not place.as_pull_request:
            place, sent = hub.own_pull_request(revision, fault), 0
            continue
        if not fault.kind.may_pass:
            if earlier is not None and earlier.kind is Fault.FORBIDDEN:
                fault = replace(fault, text=f"{earlier.text}\n{fault.text}")
            raise HubError(_failure(repo_id, fault, place, create_pr))
        if fault.kind is Fault.PASSING and before_loss is None:
            before_loss = remote
        patience.wait(sent, fault)
        if place.opens_one:
            # It may have been opened all the same.
            place = hub.own_pull_request(revision)


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
    remote = _Hub(_api(endpoint, token), repo_id, patience or Patience()).read(_Place(revision))
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
    hub = _Hub(_api(endpoint, token), repo_id, patience or Patience())
    remote = hub.read(_Place(revision))
    if remote is None:
        raise HubError(f"{repo_id} is not on the Hub, or this token may not see it: {LOGIN}, if it is private.")
    return hub.content(remote, path)


@dataclass(frozen=True)
class _Hub:
    """One conversation with the Hub about one repository."""

    api: HfApi
    repo_id: str
    patience: Patience

    def read(self, place: _Place, *, unsure: bool = False) -> Remote | None:
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
        sent, left, out = settled(remote, uploads, guard, ours, self.rules(remote))
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
        self, remote: Remote, place: _Place, uploads: list[Upload], message: str, description: str
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

    def missing(self, remote: Remote, place: _Place, uploads: Sequence[Upload]) -> list[str]:
        """The paths of uploads that did not come with a commit onto `remote`, which its `.gitignore` may keep out."""
        if IGNORE not in remote.paths:
            return []
        try:
            now = self.read(place)
        except HubError:
            return []  # The commit is made, and the next push looks again.
        return [upload.path for upload in uploads if now is None or not now.has(upload)]

    def own_pull_request(self, branch: str | None, refused: Diagnosis | None = None) -> _Place:
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

    def _own_pull_request(self, branch: str | None) -> _Place:
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
                    return _Place(branch, True, pull.url, pull.git_reference)
        return _Place(branch, True)

    def proposed(
        self,
        branch: _Place,
        card: Callable[[str | None, Collection[str]], str],
        uploads: list[Upload],
        guard: Guard,
    ) -> _Place:
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

    def find_commit(self, remote: Remote, before: Remote, place: _Place, message: str) -> str:
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


def _api(endpoint: str | None, token: str | bool | None) -> HfApi:
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise HubError(f"An endpoint begins with https:// or http://, found {endpoint!r}.")
    return HfApi(endpoint=endpoint, token=token, library_name="benchcard", library_version=__version__)


def _message(text: str) -> str:
    return MESSAGE_PREFIX + " ".join(text.split()).removeprefix(MESSAGE_PREFIX)


def _pushed(
    repo_id: str,
    remote: Remote | None,
    place: _Place,
    commit: tuple[str | None, str | None],
    *,
    changed: bool,
    diff: str,
    said: Sequence[str] = (),
    out: Sequence[str] = (),
) -> Pushed:
    """What a push came to, with what the owner should know about the repository beside what the Hub said."""
    odd = [*said, *kept_out(out)]
    if remote is None:
        odd.append(f"{repo_id} is not there yet")
    elif remote.repo_id != repo_id:
        odd.append(f"{repo_id} is now called {remote.repo_id}")
    if remote is not None and README in remote.lfs_ids:
        odd.append(f"{README} is stored in LFS, where the Hub does not read its metadata: see .gitattributes")
    return Pushed(*commit, place.pr_url, place.pr_revision, changed, tuple(odd), diff, tuple(out))


def _failure(repo_id: str, fault: Diagnosis, place: _Place, create_pr: bool | Literal["auto"]) -> str:
    """Why a push was given up, and what to do."""
    way = "Run the same push again to go on." if fault.kind.may_pass else ""
    if fault.kind is Fault.FORBIDDEN and create_pr is False:
        way = "Without the right to write, `create_pr` proposes the change as a pull request."
    elif fault.kind is Fault.FORBIDDEN and place.as_pull_request:
        way = "This token may neither write there nor open a pull request."
    return f"Pushing to {repo_id} failed: {fault.text}\nNothing was written to it. {way}".rstrip()
