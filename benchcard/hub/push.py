"""A push: files and a card in one commit to a repository, with retries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from benchcard.errors import HubError
from benchcard.hub.faults import CLIENT_ERRORS, Diagnosis, FaultKind, RetryPolicy, Token, diagnose_commit
from benchcard.hub.files import README, Pushed, Snapshot, describe_changes, make_upload
from benchcard.hub.overwrite import OverwritePolicy, Selection
from benchcard.hub.repository import MESSAGE_PREFIX, RenderReadme, Repository, Target, make_api


def push(
    repo_id: str,
    files: Mapping[str, bytes | Path],
    card: RenderReadme,
    *,
    private: bool = True,
    create_pr: bool | Literal["auto"] = "auto",
    revision: str | None = None,
    token: Token = None,
    endpoint: str | None = None,
    dry_run: bool = False,
    commit_message: str = "publish results",
    retry_policy: RetryPolicy | None = None,
    overwrite_policy: OverwritePolicy | None = None,
) -> Pushed:
    """Commit a card and its files, and return what changed.

    A push is one commit, so it is written as a whole or not at all. Pushing the same content again makes no commit.
    After an error, repeat the call: it does what is left to do.

    - `repo_id` is created if it does not exist. `private` applies only then.
    - `files` maps paths in the repository, except the README, to contents or to files on this machine.
    - `card` renders the README from the present one. It is called again whenever the README was read again.
    - `create_pr=True` pushes to the user's open pull request, or opens one; "auto" does so only where
      the token may not write.
    - `dry_run` returns what would change, and writes nothing.

    Raises:
        HubError: The Hub refused or could not be reached, the metadata is not valid, the README could not be read, a
            file does not exist, or a file of the repository must not be overwritten. The text says which, and whether
            anything was written.
    """
    if README in files:
        raise HubError(f"{README} is the card: pass it as `card`, not among the files.")
    uploads = [make_upload(path, source) for path, source in sorted(files.items())]
    retry_policy, overwrite_policy = retry_policy or RetryPolicy(), overwrite_policy or OverwritePolicy()
    repository = Repository(make_api(endpoint, token), repo_id, retry_policy)
    message = MESSAGE_PREFIX + " ".join(commit_message.split()).removeprefix(MESSAGE_PREFIX)
    target = repository.find_pull_request(revision) if create_pr is True else Target(revision)
    if create_pr == "auto":
        # An earlier push may have opened a pull request because the token could not write to the branch, as it may now.
        impatient = replace(repository, retry_policy=replace(retry_policy, attempts=1))
        target = impatient.find_complete_pull_request(revision, card, uploads, overwrite_policy) or target
    is_created, attempts = False, 0
    fault: Diagnosis | None = None
    before_lost_commit: Snapshot | None = None
    while True:
        snapshot = repository.read(target, is_commit_lost=before_lost_commit is not None)
        selection = repository.select(snapshot, card, uploads, overwrite_policy)
        result = partial(_result, repo_id, snapshot, selection)
        if snapshot is not None and selection.is_in(snapshot):
            oid, diff = snapshot.sha, ""
            if before_lost_commit is not None:
                oid = repository.find_commit(snapshot, before_lost_commit, target, message)
                diff = describe_changes(before_lost_commit, selection.uploads, selection.removed)
            url = f"{repository.api.endpoint}/{snapshot.repo_id}/commit/{oid}"
            return result(target, oid, url, changed=before_lost_commit is not None, diff=diff)
        diff = describe_changes(snapshot, selection.uploads, selection.removed)
        if dry_run:
            return result(target, None, None, changed=True, diff=diff)
        if snapshot is None:
            if is_created:
                raise HubError(f"{repo_id} was created, but the Hub does not show it yet: run the same push again.")
            repository.create(private)
            is_created = True
            continue
        if fault is not None and attempts >= retry_policy.attempts:
            raise HubError(_failure_message(repo_id, fault, target, create_pr))
        try:
            commit, warnings = repository.commit(snapshot, target, selection, message)
        except CLIENT_ERRORS as error:
            earlier, fault = fault, diagnose_commit(error, token)
        else:
            if target.opens_pull_request:
                target = replace(target, pr_url=commit.pr_url, pr_revision=commit.pr_revision)
            missing = repository.find_missing(snapshot, target, selection.uploads)
            is_changed = commit.oid != snapshot.sha
            return result(target, commit.oid, commit.commit_url, is_changed, diff, warnings=warnings, missing=missing)
        attempts += 1
        if fault.kind is FaultKind.FORBIDDEN and create_pr == "auto" and not target.as_pull_request:
            target, attempts = repository.find_pull_request(revision, fault), 0
            continue
        if not fault.kind.is_temporary:
            if earlier is not None and earlier.kind is FaultKind.FORBIDDEN:
                fault = replace(fault, text=f"{earlier.text}\n{fault.text}")
            raise HubError(_failure_message(repo_id, fault, target, create_pr))
        if fault.kind is FaultKind.UNAVAILABLE and before_lost_commit is None:
            before_lost_commit = snapshot
        retry_policy.wait(attempts, fault)
        if target.opens_pull_request:
            # The request whose answer was lost may have opened the pull request.
            target = repository.find_pull_request(revision)


def _result(
    repo_id: str,
    snapshot: Snapshot | None,
    selection: Selection,
    target: Target,
    oid: str | None,
    url: str | None,
    changed: bool,
    diff: str,
    warnings: Sequence[str] = (),
    missing: Sequence[str] = (),
) -> Pushed:
    ignored = [*selection.ignored, *missing]
    warnings = [*warnings, *selection.warnings]
    if ignored:
        names = ", ".join(ignored)
        warnings.append(f"{names} not pushed: the repository's .gitignore excludes such files, so links to them fail")
    if snapshot is None:
        warnings.append(f"{repo_id} does not exist yet")
    elif snapshot.repo_id != repo_id:
        warnings.append(f"{repo_id} is now called {snapshot.repo_id}")
    if snapshot is not None and README in snapshot.lfs_ids:
        warnings.append(f"{README} is stored in LFS, where the Hub does not read its metadata: see .gitattributes")
    return Pushed(oid, url, target.pr_url, target.pr_revision, changed, tuple(warnings), diff, tuple(ignored))


def _failure_message(repo_id: str, fault: Diagnosis, target: Target, create_pr: bool | Literal["auto"]) -> str:
    advice = "Run the same push again to continue." if fault.kind.is_temporary else ""
    if fault.kind is FaultKind.FORBIDDEN and create_pr is False:
        advice = "Use `create_pr` to propose the change as a pull request."
    elif fault.kind is FaultKind.FORBIDDEN and target.as_pull_request:
        advice = "This token may neither write there nor open a pull request."
    return f"Pushing to {repo_id} failed: {fault.text}\nNothing was written to it. {advice}".rstrip()
