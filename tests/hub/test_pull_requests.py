"""`benchcard.hub.push`: pull requests, where the token may not write or the user asks for one."""

from __future__ import annotations

from typing import Any

import hub_fixtures
import pytest
from hub_fixtures import CARD, FILES, MINE, THEIRS, Card, Push, error_of, section
from huggingface_hub import CommitOperationAdd, HfApi

from benchcard.hub.repository import MESSAGE_PREFIX
from benchcard.testing import LocalHub

hub, pushed = hub_fixtures.hub, hub_fixtures.pushed


def test_without_the_right_to_write_a_pull_request_is_opened(hub: LocalHub, pushed: Push) -> None:
    """The branch does not change; the result names the pull request, which contains the whole push."""
    head = hub.add_model(THEIRS, {"README.md": CARD})
    done = pushed(THEIRS)
    assert hub.head(THEIRS) == head
    (pull,) = hub.pull_requests(THEIRS)
    assert pull.title == "benchcard: publish results"
    assert done.pr_revision == pull.ref == "refs/pr/1"
    assert done.pr_url == f"{hub.endpoint}/{THEIRS}/discussions/1"
    assert done.commit_oid == hub.head(THEIRS, revision="refs/pr/1")
    assert hub.read(THEIRS, "README.md", revision="refs/pr/1") == section(CARD).encode()
    assert hub.files(THEIRS, revision="refs/pr/1")["benchcard/run/results.csv"] == FILES["benchcard/run/results.csv"]


@pytest.mark.parametrize("create_pr", ["auto", True])
def test_the_own_open_pull_request_is_used_again(hub: LocalHub, pushed: Push, create_pr: bool | str) -> None:
    """The next push commits to it, on top of its content; the same push again commits nothing."""
    hub.add_model(THEIRS, {"README.md": CARD})
    pushed(THEIRS, create_pr=create_pr)
    hub.commit(THEIRS, {"README.md": section(CARD) + "Reviewed.\n"}, revision="refs/pr/1")
    second = pushed(THEIRS, card=Card("faster"), create_pr=create_pr)
    assert (second.changed, second.pr_revision) == (True, "refs/pr/1")
    assert len(hub.pull_requests(THEIRS)) == 1
    kept = section(CARD, "faster") + "Reviewed.\n"
    assert hub.read(THEIRS, "README.md", revision="refs/pr/1") == kept.encode()
    third = pushed(THEIRS, card=Card("faster"), create_pr=create_pr)
    assert (third.changed, third.pr_url, third.commit_oid) == (False, second.pr_url, second.commit_oid)


def test_other_pull_requests_are_left_alone(hub: LocalHub, pushed: Push) -> None:
    """A pull request of another user, with another title, closed, or onto another branch is not used."""
    hub.add_model(THEIRS, {"README.md": CARD})
    owner = HfApi(endpoint=hub.endpoint, token=hub.add_user("other"))
    owner.create_branch(THEIRS, branch="dev")
    mine = HfApi(endpoint=hub.endpoint, token=hub.token)
    rival = HfApi(endpoint=hub.endpoint, token=hub.add_user("rival"))

    def opened(api: HfApi, title: str, **more: Any) -> None:
        api.create_commit(THEIRS, [CommitOperationAdd("x", b"1")], commit_message=title, create_pr=True, **more)

    opened(rival, MESSAGE_PREFIX + "publish results")
    opened(mine, "Fix a typo")
    opened(mine, MESSAGE_PREFIX + "publish results")
    mine.change_discussion_status(THEIRS, 3, "closed")
    opened(mine, MESSAGE_PREFIX + "publish results", revision="dev")
    assert pushed(THEIRS).pr_revision == "refs/pr/5"
    assert pushed(THEIRS, revision="dev").pr_revision == "refs/pr/4"


def test_a_pull_request_that_was_merged(hub: LocalHub, pushed: Push) -> None:
    """After a merge the same push changes nothing; another push opens a new pull request."""
    hub.add_model(THEIRS, {"README.md": CARD})
    pushed(THEIRS)
    HfApi(endpoint=hub.endpoint, token=hub.add_user("other")).merge_pull_request(THEIRS, 1)
    assert not pushed(THEIRS).changed
    assert pushed(THEIRS, card=Card("faster")).pr_revision == "refs/pr/2"


def test_a_pull_request_on_request(hub: LocalHub, pushed: Push) -> None:
    """`create_pr=True` opens a pull request although the token may write."""
    head = hub.add_model(MINE, {"README.md": CARD})
    assert pushed(create_pr=True).pr_revision == "refs/pr/1"
    assert hub.head(MINE) == head
    assert len(hub.requests("commit")) == 1


def test_a_lost_reply_opens_one_pull_request(hub: LocalHub, pushed: Push) -> None:
    """A pull request whose reply was lost is found by its title and author."""
    hub.add_model(THEIRS, {"README.md": CARD})
    hub.drop_response("commit")
    done = pushed(THEIRS)
    assert len(hub.pull_requests(THEIRS)) == 1
    assert (done.changed, done.pr_revision) == (True, "refs/pr/1")
    assert done.commit_oid == hub.head(THEIRS, revision="refs/pr/1")


def test_a_rival_commit_on_the_pull_request(hub: LocalHub, pushed: Push) -> None:
    """A commit of another user to the pull request is kept, as on a branch."""
    hub.add_model(THEIRS, {"README.md": CARD})
    pushed(THEIRS)
    hub.rival_commit(THEIRS, {"theirs.txt": "!"}, revision="refs/pr/1")
    pushed(THEIRS, card=Card("faster"))
    held = hub.files(THEIRS, revision="refs/pr/1")
    assert held["theirs.txt"] == b"!"
    assert held["README.md"] == section(CARD, "faster").encode()


@pytest.mark.parametrize("create_pr", ["auto", True])
def test_a_temporary_refusal_opens_one_pull_request(hub: LocalHub, pushed: Push, create_pr: bool | str) -> None:
    """A push that became a pull request after a temporary refusal is found by the same push, which changes nothing; a
    push with other content goes to the branch.
    """
    head = hub.add_model(MINE, {"README.md": CARD})
    hub.fail("commit", status=403, times=1)
    first = pushed()
    assert first.pr_revision == "refs/pr/1"
    for is_dry in (True, False):
        again = pushed(create_pr=create_pr, dry_run=is_dry)
        assert (again.changed, again.pr_url, again.commit_oid) == (False, first.pr_url, first.commit_oid)
    assert hub.head(MINE) == head
    assert len(hub.pull_requests(MINE)) == 1
    other = pushed(card=Card("faster"))
    assert (other.changed, other.pr_url) == (True, None)
    assert hub.read(MINE, "README.md") == section(CARD, "faster").encode()


def test_an_error_about_pull_requests_does_not_stop_a_push(hub: LocalHub, pushed: Push) -> None:
    """Where own pull requests cannot be listed, the push goes to the branch if the token may write."""
    hub.add_model(MINE, {"README.md": CARD})
    hub.fail("discussions", status=403)
    assert pushed().pr_url is None


@pytest.mark.parametrize("is_dry", [True, False])
@pytest.mark.parametrize("repo_id", [MINE, THEIRS])
def test_no_pull_request_without_a_repository(hub: LocalHub, pushed: Push, repo_id: str, is_dry: bool) -> None:
    """`create_pr=True` for a missing repository says so and how to create it; nothing is created."""
    text = error_of(pushed, repo_id, create_pr=True, dry_run=is_dry)
    assert text.startswith(f"{repo_id} is not on the Hub")
    assert "push without `create_pr`, which creates the repository" in text
    assert "401" not in text
    assert not hub.exists(repo_id)
    assert {seen.method for seen in hub.requests()} == {"GET"}


def test_no_pull_request_if_disabled(hub: LocalHub, pushed: Push) -> None:
    """With `create_pr=False` the error says what to do instead."""
    hub.add_model(THEIRS, {"README.md": CARD})
    text = error_of(pushed, THEIRS, create_pr=False)
    assert "403" in text
    assert "`create_pr`" in text
    assert not hub.pull_requests(THEIRS)


def test_no_pull_request_if_the_owner_disabled_them(hub: LocalHub, pushed: Push) -> None:
    """Where the owner disabled pull requests, the error has both refusals."""
    hub.add_model(THEIRS, {"README.md": CARD})
    hub.disable_pull_requests(THEIRS)
    text = error_of(pushed, THEIRS)
    assert "rights to write" in text
    assert "Discussions are disabled" in text
    assert "neither write there nor open a pull request" in text


def test_a_token_that_only_reads(hub: LocalHub, pushed: Push) -> None:
    """A read token may neither write nor open a pull request, even in an own repository."""
    head = hub.add_model(MINE, {"README.md": CARD})
    text = error_of(pushed, token=hub.add_user("local-user", role="read"))
    assert "neither write there nor open a pull request" in text
    assert hub.head(MINE) == head


def test_a_pull_request_needs_a_list_of_own_ones(hub: LocalHub, pushed: Push) -> None:
    """Where the list of own pull requests is refused, none is opened, and the error has the first refusal too."""
    hub.add_model(THEIRS, {"README.md": CARD})
    hub.fail("discussions", status=403, message="Not for you")
    text = error_of(pushed, THEIRS)
    assert "Not for you" in text
    assert "rights to write" in text
    assert not hub.pull_requests(THEIRS)
