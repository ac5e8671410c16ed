"""`benchcard.hub.push` and `benchcard.hub.faults`: each fault of the Hub, and the repository after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial

import hub_fixtures
import pytest
from hub_fixtures import BEGIN, CARD, END, MINE, THEIRS, Card, Push, error_of, section

from benchcard.errors import HubError
from benchcard.hub.faults import FaultKind, RetryPolicy, diagnose, redacted
from benchcard.hub.overwrite import OverwritePolicy
from benchcard.hub.repository import read_file, read_readme
from benchcard.testing import Fault, LocalHub

hub, pushed, waits = hub_fixtures.hub, hub_fixtures.pushed, hub_fixtures.waits


# A README that cannot be read is never written


@pytest.mark.parametrize(
    "fault",
    [
        Fault("resolve", status=503, times=None),
        Fault("resolve", status=500, times=None),
        Fault("resolve", method="GET", status=503, times=None),
        Fault("resolve", status=403, times=None),
        Fault("resolve", status=401, times=None),
        Fault("resolve", status=404, times=None, message="A page of a proxy"),
        Fault("resolve", status=404, times=None, headers={"X-Error-Code": "EntryNotFound"}),
        Fault("resolve", status=502, times=None, body=b"<html>Bad gateway</html>"),
        Fault("resolve", status=200, times=None, body=b"<html>Log in to the network</html>"),
        Fault("resolve", method="GET", status=200, times=None, body=b"x" * len(CARD)),
        Fault("resolve", method="GET", status=200, times=None, body=b""),
        Fault("resolve", times=None, ending="drop"),
        Fault("resolve", status=403, times=None, headers={"X-Error-Code": "GatedRepo"}),
        Fault("info", status=503, times=None),
        Fault("info", status=403, times=None, headers={"X-Error-Code": "GatedRepo"}),
        Fault("info", status=404, times=None, headers={"X-Error-Code": "RevisionNotFound"}),
        Fault("info", status=200, times=None, body=b"<html>Log in to the network</html>"),
    ],
    ids=lambda fault: f"{fault.route}-{fault.method}-{fault.status}-{fault.ending}-{(fault.body or b'')[:12]!r}",
)
def test_a_readme_that_cannot_be_read_is_never_written(hub: LocalHub, pushed: Push, fault: Fault) -> None:
    """A README that cannot be read completely and unchanged ends the push before anything is sent."""
    head = hub.add_model(MINE, {"README.md": CARD})
    hub.strike(fault)
    card = Card()
    error_of(pushed, card=card, retry_policy=RetryPolicy(2, 0.001))
    assert card.got == []
    assert hub.head(MINE) == head
    assert {seen.method for seen in hub.requests()} <= {"GET", "HEAD"}
    hub.heal()
    assert pushed(card=card).changed
    assert card.got == [CARD]


def test_a_readme_that_is_unavailable_for_a_moment(hub: LocalHub, pushed: Push) -> None:
    """A push waits for the end of a short outage."""
    hub.add_model(MINE, {"README.md": CARD})
    hub.fail("resolve", status=503, times=2)
    hub.fail("info", status=502, times=1)
    assert pushed().changed
    assert hub.read(MINE, "README.md") == section(CARD).encode()


def test_a_download_that_breaks_off(hub: LocalHub, pushed: Push) -> None:
    """A partial download is not used as the README: the client downloads the rest."""
    hub.add_model(MINE, {"README.md": CARD})
    hub.cut_response("resolve", times=1)
    card = Card()
    pushed(card=card)
    assert card.got == [CARD]


def test_an_endpoint_without_a_server(pushed: Push) -> None:
    """After a few attempts the error says that the Hub could not be reached."""
    with LocalHub() as stopped:
        endpoint = stopped.endpoint
    text = error_of(pushed, endpoint=endpoint, retry_policy=RetryPolicy(2, 0.001))
    assert "could not be reached" in text
    assert "Run it again" in text


# Commits of other users


def test_a_rival_commit_is_merged_with(hub: LocalHub, pushed: Push) -> None:
    """A commit of another user between reading and writing is read and kept."""
    hub.add_model(MINE, {"README.md": CARD})
    hub.rival_commit(MINE, {"README.md": CARD + "Theirs.\n", "theirs.txt": "!"})
    card = Card()
    done = pushed(card=card)
    assert card.got == [CARD, CARD + "Theirs.\n"]
    assert hub.read(MINE, "README.md") == section(CARD + "Theirs.\n").encode()
    assert hub.read(MINE, "theirs.txt") == b"!"
    assert [commit.author for commit in hub.commits(MINE)][:2] == ["local-user", "rival"]
    assert f"\n+{BEGIN}fast{END}" in done.diff
    assert "+Theirs" not in done.diff


def test_a_rival_who_adds_a_readme(hub: LocalHub, pushed: Push) -> None:
    """A README that another user added in the meantime is merged, not overwritten."""
    hub.add_model(MINE, {"config.json": "{}"})
    hub.rival_commit(MINE, {"README.md": CARD + "Theirs.\n"})
    pushed()
    assert hub.read(MINE, "README.md") == section(CARD + "Theirs.\n").encode()


def test_a_rival_who_commits_again_and_again(hub: LocalHub, pushed: Push) -> None:
    """When the attempts are used up, the push fails and has written nothing."""
    hub.add_model(MINE, {"README.md": CARD})
    count = iter(range(1000))

    def rival() -> object:
        return hub.commit(MINE, {"README.md": f"{CARD}{next(count)}"}, author="rival")

    hub.before("commit", rival, times=None)
    text = error_of(pushed, retry_policy=RetryPolicy(3, 0.001))
    assert "412" in text
    assert "Nothing was written" in text
    assert "Run the same push again" in text
    assert len(hub.requests("commit")) == 3
    assert {commit.author for commit in hub.commits(MINE)} == {"rival", "local-user"}
    assert BEGIN.encode() not in hub.read(MINE, "README.md")


def test_a_rival_who_creates_the_repository(hub: LocalHub, pushed: Push) -> None:
    """A repository that another user creates in the meantime is used as it is."""

    def rival() -> object:
        return hub.add_model(MINE, {"README.md": CARD + "Theirs.\n"})

    hub.before("create-repo", rival)
    pushed()
    assert hub.read(MINE, "README.md") == section(CARD + "Theirs.\n").encode()


# Lost replies and outages


def test_a_lost_reply_is_looked_up(hub: LocalHub, pushed: Push) -> None:
    """A commit whose reply was lost is found, and not made again."""
    hub.add_model(MINE, {"README.md": CARD})
    hub.drop_response("commit")
    done = pushed()
    assert len(hub.requests("commit")) == 1
    assert len(hub.commits(MINE)) == 3
    assert done.changed
    assert done.commit_oid == hub.head(MINE)
    assert done.commit_url.endswith(f"{MINE}/commit/{hub.head(MINE)}")
    assert f"+{BEGIN}fast{END}" in done.diff


def test_a_lost_reply_beneath_a_rival_commit(hub: LocalHub, pushed: Push) -> None:
    """The result is the own commit, not the one on top of it."""
    hub.add_model(MINE, {"README.md": CARD})
    hub.drop_response("commit")
    hub.strike(Fault("info", after=1, before=lambda: hub.commit(MINE, {"theirs.txt": "!"}, author="rival")))
    done = pushed()
    titles = [commit.title for commit in hub.commits(MINE)]
    assert titles == ["Update files", "benchcard: publish results", "Upload files", "initial commit"]
    assert done.commit_oid == hub.commits(MINE)[1].oid


def test_a_lost_reply_whose_commit_cannot_be_found(hub: LocalHub, pushed: Push) -> None:
    """Where the history cannot be read, the result is the newest commit, which contains the push."""
    hub.drop_response("commit")
    hub.fail("commits", status=403)
    assert pushed().commit_oid == hub.head(MINE)


def test_a_lost_reply_and_then_an_outage(hub: LocalHub, pushed: Push) -> None:
    """Where the look-up fails too, the error says that the state is unknown."""
    hub.add_model(MINE, {"README.md": CARD})
    hub.drop_response("commit")
    hub.strike(Fault("info", after=1, status=503, times=None))
    assert "Whether the commit was made is unknown" in error_of(pushed, retry_policy=RetryPolicy(2, 0.001))
    hub.heal()
    assert not pushed().changed
    assert len(hub.requests("commit")) == 1


@pytest.mark.parametrize("route", ["commit", "validate-yaml"])
def test_an_outage_that_passes(hub: LocalHub, pushed: Push, route: str) -> None:
    """A push waits for the end of server errors and of a proxy's error page, and makes one commit."""
    hub.add_model(MINE, {"README.md": CARD})
    hub.fail(route, status=500, times=1)
    hub.strike(Fault(route, status=502, body=b"<html>Bad gateway</html>"))
    hub.fail(route, status=504, times=1)
    assert pushed().changed
    assert len(hub.commits(MINE)) == 3


def test_an_outage_that_does_not_pass(hub: LocalHub, pushed: Push) -> None:
    """When the attempts are used up, nothing was written, and the error says so; the same push works later."""
    head = hub.add_model(MINE, {"README.md": CARD})
    hub.fail("commit", status=503)
    text = error_of(pushed, retry_policy=RetryPolicy(3, 0.001))
    assert "503" in text
    assert "Nothing was written" in text
    assert "Run the same push again" in text
    assert len(hub.requests("commit")) == 3
    assert hub.head(MINE) == head
    hub.heal()
    assert pushed().changed


def test_an_upload_that_is_refused(hub: LocalHub, pushed: Push) -> None:
    """A large file that the storage refuses ends the push; the error has the reason, not the client's wrapper."""
    head = hub.add_model(MINE, {"README.md": CARD})
    hub.fail("lfs-upload", status=400, message="too strange")
    text = error_of(pushed, files={"onnx/model.onnx": b"\0"})
    assert "too strange" in text
    assert hub.head(MINE) == head


def test_a_repository_that_does_not_show_up(hub: LocalHub, pushed: Push) -> None:
    """A new repository that the Hub does not show yet is not created again."""
    hub.strike(Fault("info", status=404, times=None, headers={"X-Error-Code": "RepoNotFound"}))
    assert "does not show it yet" in error_of(pushed)
    assert len(hub.requests("create-repo")) == 1


# Replies of another form

ODD = [
    b"[]",
    b"{}",
    b"null",
    b'"text"',
    b"7",
    b"[null]",
    b'{"id": 7, "name": 7, "commitOid": 7}',
    b"<html>x</html>",
    b"",
]
READS = ("info", "resolve")
WRITES = ("validate-yaml", "preupload", "lfs-batch", "lfs-upload", "lfs-verify", "commit", "create-repo")
PULLS = ("whoami", "discussions", "discussion")


@pytest.mark.parametrize("body", ODD, ids=repr)
@pytest.mark.parametrize("route", [*READS, *WRITES, *PULLS])
def test_a_reply_of_another_form_is_reported(hub: LocalHub, pushed: Push, route: str, body: bytes) -> None:
    """A reply with a status of success and another content is a `HubError` that names the request, the content and what
    to do; nothing is partly written, and the same push works afterwards.
    """
    repo_id = THEIRS if route in PULLS else MINE
    files = {"a.csv": b"1", "onnx/model.onnx": b"0" * 100}
    if route != "create-repo":
        hub.add_model(repo_id, {"README.md": CARD})
    if route == "discussion":
        pushed(repo_id, files={"a.csv": b"0"})
    before = hub.files(repo_id) if route != "create-repo" else None
    hub.strike(Fault(route, status=200, times=None, body=body))
    if (route, body[:1]) == ("validate-yaml", b"{"):
        # It contains no error, and the commit checks the metadata itself.
        assert pushed(repo_id, files=files).changed
    else:
        text = error_of(pushed, repo_id, files=files, retry_policy=RetryPolicy(2, 0.001))
        assert hub.token not in text
        if route not in ("resolve", "lfs-upload", "lfs-verify"):
            assert "cannot be read (status 200, " in text
            assert (body.decode() or "an empty body") in text
            assert "check the network, the proxy and HF_ENDPOINT" in text
        assert (hub.files(repo_id) if hub.exists(repo_id) else None) == before
    hub.heal()
    pushed(repo_id, files=files)
    where = {"revision": "refs/pr/1"} if route in PULLS else {}
    assert hub.files(repo_id, **where).items() >= files.items()
    assert not pushed(repo_id, files=files).changed


@pytest.mark.parametrize("body", ODD, ids=repr)
@pytest.mark.parametrize("repo_id", [MINE, THEIRS])
def test_a_commit_with_a_reply_of_another_form_is_found(hub: LocalHub, pushed: Push, repo_id: str, body: bytes) -> None:
    """A commit or pull request whose reply cannot be read is looked up like one whose reply was lost."""
    hub.add_model(repo_id, {"README.md": CARD})
    hub.strike(Fault("commit", body=body))
    hub.strike(Fault("commits", times=None, body=body))
    done = pushed(repo_id)
    assert done.changed
    assert len([seen for seen in hub.requests("commit") if seen.status == 200]) == 1
    assert done.commit_oid == hub.head(repo_id, revision=done.pr_revision or "main")
    assert len(hub.pull_requests(repo_id)) == (repo_id == THEIRS)


@pytest.mark.parametrize("body", ODD, ids=repr)
@pytest.mark.parametrize("route", READS)
def test_reading_a_reply_of_another_form(hub: LocalHub, route: str, body: bytes) -> None:
    """Reading raises a `HubError`, and never returns a text that is not the README."""
    hub.add_model(MINE, {"README.md": CARD, "a.json": "{}"})
    given = {"endpoint": hub.endpoint, "token": hub.token, "retry_policy": RetryPolicy(2, 0.001)}
    for call in (read_readme, partial(read_file, path="a.json")):
        hub.strike(Fault(route, status=200, times=None, body=body))
        with pytest.raises(HubError):
            call(MINE, **given)
        hub.heal()


def test_files_that_are_listed_without_an_id_exist(hub: LocalHub, pushed: Push) -> None:
    """A listing without ids does not allow to replace the weights of another author."""
    hub.add_model(MINE, {"README.md": CARD, "onnx/model.onnx": "theirs"})
    listed = [{"rfilename": "README.md"}, {"rfilename": "onnx/model.onnx"}]
    body = json.dumps({"id": MINE, "sha": hub.head(MINE), "siblings": listed}).encode()
    hub.strike(Fault("info", status=200, times=None, body=body))
    policy = OverwritePolicy(owned=frozenset({"onnx/model.onnx"}), manifest="run.json")
    assert "with other content" in error_of(pushed, files={"onnx/model.onnx": b"0"}, overwrite_policy=policy)
    assert hub.read(MINE, "onnx/model.onnx") == b"theirs"


# Rate limits


@pytest.mark.parametrize(
    "headers",
    [
        {"RateLimit": '"api";r=0;t=-5'},
        {"RateLimit": '"api";r=0;t=1e9'},
        {"RateLimit": '"api";r=0;t=nan'},
        {"RateLimit": '"api";r=0;t=99999999999999999999'},
        {"RateLimit": "soon"},
        {"Retry-After": "-5"},
        {"Retry-After": "nan"},
        {"Retry-After": "1e9"},
        {"Retry-After": "soon"},
        {"Retry-After": "9" * 400},
        {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"},
        {"Retry-After": "Wed, 21 Oct 99999 07:28:00 GMT"},
        {"Retry-After": "Wed, 99 Oct 2015 99:28:00 GMT"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("route", ["info", "preupload"])
def test_an_invalid_wait_is_ignored(
    hub: LocalHub, pushed: Push, waits: list[float], route: str, status: int, headers: dict[str, str]
) -> None:
    """Where the Hub asks for a wait that is negative, past or not a number, the usual short waits apply, also to
    requests that the client repeats by itself.
    """
    hub.add_model(MINE, {"README.md": CARD})
    hub.strike(Fault(route, status=status, times=2, headers=headers))
    assert pushed(retry_policy=RetryPolicy(5, 1.0)).changed
    assert 0 < len(waits) <= 2
    assert all(0 <= wait <= 2 for wait in waits)
    assert sum(seen.status == status for seen in hub.requests(route)) == 2


@pytest.mark.parametrize("route", ["info", "preupload", "resolve", "commit"])
def test_an_absurd_wait_ends_the_push(hub: LocalHub, pushed: Push, waits: list[float], route: str) -> None:
    """Neither benchcard nor the client waits for eleven days."""
    hub.add_model(MINE, {"README.md": CARD})
    hub.rate_limit(route, wait_s=999_999, times=9)
    assert "999,999 s" in error_of(pushed)
    assert waits == []


@pytest.mark.parametrize("header", ["RateLimit", "Retry-After"])
@pytest.mark.parametrize("route", ["info", "validate-yaml", "commit"])
def test_a_rate_limit_is_respected(hub: LocalHub, pushed: Push, waits: list[float], header: str, route: str) -> None:
    """The push waits a little longer than the Hub asks, and then continues."""
    hub.rate_limit(route, wait_s=40, header=header, times=2)
    assert pushed().changed
    assert [40 <= wait < 41 for wait in waits] == [True, True]


def test_a_date_in_retry_after(hub: LocalHub, pushed: Push, waits: list[float]) -> None:
    """`Retry-After` may be a date."""
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    hub.strike(Fault("info", status=429, headers={"Retry-After": later}))
    pushed()
    assert 60 < waits[0] < 102


def test_a_wait_that_is_too_long_is_reported(hub: LocalHub, pushed: Push, waits: list[float]) -> None:
    """The push does not wait for an hour: the error says how long it would be."""
    hub.rate_limit("commit", wait_s=3600, header="Retry-After")
    assert "3,600 s" in error_of(pushed)
    assert waits == []


def test_waits_grow_and_vary(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    """Where the Hub asks for no wait, each wait is about twice the one before, with a random part."""
    diagnosis = diagnose(ConnectionError("gone"))
    for attempt in range(1, 5):
        RetryPolicy(first_wait_s=1.0).wait(attempt, diagnosis)
    assert all(0.5 * 2**n <= wait <= 2**n for n, wait in enumerate(waits))
    assert len({wait / 2**n for n, wait in enumerate(waits)}) == 4


# Tokens


@pytest.mark.parametrize("route", ["info", "resolve", "validate-yaml", "preupload", "commit", "create-repo"])
@pytest.mark.parametrize("message", ["Invalid credentials in Authorization header", "Invalid username or password."])
def test_a_refused_token_says_to_log_in(
    hub: LocalHub, pushed: Push, monkeypatch: pytest.MonkeyPatch, route: str, message: str
) -> None:
    """For a 401 to any request, the error says that the token is not accepted and how to log in."""
    if route != "create-repo":
        hub.add_model(MINE, {"README.md": CARD})
    before = hub.files(MINE) if hub.exists(MINE) else None
    hub.fail(route, status=401, message=message)
    for given in ({}, {"token": None}):
        monkeypatch.setenv("HF_TOKEN", hub.token)
        text = error_of(pushed, **given)
        assert "did not accept the token (401)" in text
        assert "log in with `hf auth login`, or set HF_TOKEN" in text
        assert hub.token not in text
    assert (hub.files(MINE) if hub.exists(MINE) else None) == before


@pytest.mark.parametrize("repo_id", [MINE, THEIRS, "local-user/new"])
@pytest.mark.parametrize("create_pr", ["auto", True, False])
def test_without_a_token_a_push_says_to_log_in(
    hub: LocalHub, pushed: Push, repo_id: str, create_pr: bool | str
) -> None:
    """Without a token, the error says so, whether or not the repository exists."""
    for there in (MINE, THEIRS):
        hub.add_model(there, {"README.md": CARD})
    text = error_of(pushed, repo_id, token=False, create_pr=create_pr)
    assert "asks for a token, and there is none" in text
    assert "log in with `hf auth login`, or set HF_TOKEN" in text
    assert not hub.exists("local-user/new")


def test_reading_a_private_repository_without_a_token_says_to_log_in(hub: LocalHub) -> None:
    """The Hub gives the same reply for a private and a missing repository: the error names both."""
    hub.add_model(MINE, {"README.md": CARD}, private=True)
    with pytest.raises(HubError, match=r"is not on the Hub.*log in with `hf auth login`"):
        read_readme(MINE, endpoint=hub.endpoint, token=False)
    with pytest.raises(HubError, match="did not accept the token"):
        read_readme(MINE, endpoint=hub.endpoint, token="hf_wrong")


def test_a_token_of_the_environment_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of the environment is redacted, whatever it looks like."""
    monkeypatch.setenv("HF_TOKEN", "my-own-secret")
    assert redacted("no my-own-secret") == "no <token>"


@pytest.mark.parametrize("route", ["info", "resolve", "validate-yaml", "commit", "create-repo"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 412, 429, 500])
def test_no_token_in_any_error(
    hub: LocalHub,
    pushed: Push,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    route: str,
    status: int,
) -> None:
    """A token that the server repeats in its replies is in no message, traceback, log or output."""
    if route != "create-repo":
        hub.add_model(MINE, {"README.md": CARD})
    hub.fail(route, status=status, message=f"refused: Authorization: Bearer {hub.token} ({hub.token})")
    caplog.set_level("DEBUG", logger="benchcard")
    with pytest.raises(HubError) as error:
        pushed(retry_policy=RetryPolicy(2, 0.001))
    shown = "".join(traceback.format_exception(error.value)) + repr(error.value) + str(error.value.args)
    assert hub.token not in shown
    assert "refused" in shown or status in (401, 404)
    assert all(hub.token not in record.getMessage() for record in caplog.records if record.name.startswith("benchcard"))
    written = capfd.readouterr()
    assert hub.token not in written.out + written.err


def test_no_token_in_the_result(hub: LocalHub, pushed: Push) -> None:
    """Neither the result of a push nor what it wrote contains the token."""
    done = pushed()
    assert hub.token not in repr(done)
    assert all(hub.token.encode() not in content for content in hub.files(MINE).values())
    assert all(hub.token not in commit.title + commit.description for commit in hub.commits(MINE))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("token hf_abcdefghijklmnopqrstuvwxyz!", "token <token>!"),
        ("Authorization: Bearer abc.def-ghi, more", "Authorization: Bearer <token>, more"),
        ("call hf_hub_download(repo)", "call hf_hub_download(repo)"),
        ("my-own-secret here", "<token> here"),
    ],
)
def test_text_that_looks_like_a_token_is_redacted(text: str, clean: str) -> None:
    """The token in use and everything of the form of a token is redacted; names of functions stay."""
    assert redacted(text, "my-own-secret") == clean


def test_unknown_errors_are_final() -> None:
    """An unknown error is not retried."""
    assert diagnose(ValueError("odd")).kind is FaultKind.FINAL
    assert diagnose(TimeoutError()).kind is FaultKind.UNAVAILABLE
    assert diagnose(TimeoutError()).text.endswith("TimeoutError")


@pytest.mark.parametrize("check", ["own", "other"])
def test_no_token_in_errors_of_metadata(hub: LocalHub, pushed: Push, check: str) -> None:
    """A token that the server repeats in an error about the card is redacted."""
    if check == "own":
        hub.reject_metadata(f'"license" is not {hub.token}')
    else:
        hub.warn_of_metadata("odd")
        hub.fail("commit", status=400, message=f'"license" is not {hub.token}')
    text = error_of(pushed)
    assert '"license" is not <token>' in text


# Killed processes

CHILD = """
import sys
from benchcard.hub.push import push
def card(text, paths):
    return text.replace("slow", "fast")
push(sys.argv[1], {"a.csv": b"1", "onnx/model.onnx": b"0" * 1000}, card, create_pr=False)
"""


@pytest.mark.parametrize("when", ["info", "validate-yaml", "lfs-upload", "lfs-verify", "commit"])
def test_a_push_that_is_killed(hub: LocalHub, pushed: Push, when: str) -> None:
    """A push that is killed at any request leaves the repository as before or as after; the next push completes it."""
    hub.add_model(MINE, {"README.md": CARD + "slow", "a.csv": "0"})
    before = hub.files(MINE)
    files = {"a.csv": b"1", "onnx/model.onnx": b"0" * 1000}
    after = {**before, **files, "README.md": (CARD + "fast").encode()}
    child: list[subprocess.Popen[bytes]] = []

    def kill() -> None:
        child[0].kill()
        child[0].wait()

    hub.before(when, kill)
    environment = os.environ | hub.environment()
    # The child needs far longer to import its libraries than this process to add it to the list.
    child.append(subprocess.Popen([sys.executable, "-c", CHILD, MINE], env=environment, stderr=subprocess.DEVNULL))
    assert child[0].wait(timeout=60) == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while not hub.requests(when) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert hub.files(MINE) == (after if when == "commit" else before)
    done = pushed(files=files, card=lambda text, _paths: (text or "").replace("slow", "fast"))
    assert hub.files(MINE) == after
    assert done.changed == (when != "commit")
    assert len(hub.requests("commit")) == 1
