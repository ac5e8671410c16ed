"""One push: files committed to a repository, retried and resumed, or refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from benchcard.errors import HubError
from benchcard.hub.faults import CLIENT_ERRORS, Diagnosis, Fault, Patience, diagnose_commit
from benchcard.hub.files import README, Pushed, Remote, difference, upload_of
from benchcard.hub.guard import Guard, kept_out
from benchcard.hub.repository import MESSAGE_PREFIX, Repository, Target, api_of


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
    hub = Repository(api_of(endpoint, token), repo_id, patience)
    message = _message(commit_message)
    place = hub.own_pull_request(revision) if create_pr is True else Target(revision)
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


def _message(text: str) -> str:
    return MESSAGE_PREFIX + " ".join(text.split()).removeprefix(MESSAGE_PREFIX)


def _pushed(
    repo_id: str,
    remote: Remote | None,
    place: Target,
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


def _failure(repo_id: str, fault: Diagnosis, place: Target, create_pr: bool | Literal["auto"]) -> str:
    """Why a push was given up, and what to do."""
    way = "Run the same push again to go on." if fault.kind.may_pass else ""
    if fault.kind is Fault.FORBIDDEN and create_pr is False:
        way = "Without the right to write, `create_pr` proposes the change as a pull request."
    elif fault.kind is Fault.FORBIDDEN and place.as_pull_request:
        way = "This token may neither write there nor open a pull request."
    return f"Pushing to {repo_id} failed: {fault.text}\nNothing was written to it. {way}".rstrip()
