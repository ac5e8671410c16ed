"""`benchcard.testing.LocalHub`: its faults, as the real client sees them."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from benchcard.testing import Fault, LocalHub

# huggingface_hub itself hands LFS content to httpx in a way that httpx has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning")

CARD = "---\nlicense: mit\n---\n# A model\n"
MODEL = "local-user/model"


def add(path: str, content: bytes | str) -> CommitOperationAdd:
    return CommitOperationAdd(path, content.encode() if isinstance(content, str) else content)


def status_of(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_an_unreachable_file_is_no_missing_file(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    """A 503 on the download reads as "cannot reach", which the client counts among the "entry not found" errors."""
    hub.add_model(MODEL, {"README.md": CARD})
    # The client asks again with growing pauses: twice is enough to see that it does.
    hub.fail("resolve", status=503, times=2)
    api.hf_hub_download(MODEL, "README.md", local_dir=tmp_path / "patient")
    hub.fail("resolve", status=403)
    with pytest.raises(LocalEntryNotFoundError):
        api.hf_hub_download(MODEL, "README.md", local_dir=tmp_path / "refused")


def test_faults_strike_in_order_and_then_heal(hub: LocalHub, api: HfApi) -> None:
    """Each fault strikes `times` requests after `after` requests, and then the next fault strikes."""
    hub.add_model(MODEL, {"a": "0"})
    hub.strike(Fault("info", status=500, after=1))
    hub.fail("info", status=401, times=1)

    def status() -> int:
        try:
            api.repo_info(MODEL)
        except HfHubHTTPError as error:
            return error.response.status_code
        return 200

    assert [status() for _ in range(4)] == [200, 500, 401, 200]
    hub.fail("*", status=502)
    assert status() == 502
    hub.heal()
    assert status() == 200


@pytest.mark.parametrize("header", ["RateLimit", "Retry-After"])
def test_rate_limits_say_how_long(hub: LocalHub, api: HfApi, header: str) -> None:
    """A 429 has the header with the time to wait."""
    hub.add_model(MODEL, {"a": "0"})
    hub.rate_limit("info", wait_s=7, header=header)
    with pytest.raises(HfHubHTTPError) as error:
        api.repo_info(MODEL)
    assert status_of(error) == 429
    assert "7" in error.value.response.headers[header]
    assert api.repo_info(MODEL).sha


def test_a_dropped_response_leaves_the_commit_made(hub: LocalHub, api: HfApi) -> None:
    """The client sees a broken connection although the commit was made."""
    head = hub.add_model(MODEL, {"a": "0"})
    hub.drop_response("commit")
    with pytest.raises(Exception, match="disconnected") as error:
        api.create_commit(MODEL, [add("a", "1")], commit_message="Lost")
    assert not isinstance(error.value, HfHubHTTPError)
    assert hub.read(MODEL, "a") == b"1"
    assert hub.commits(MODEL)[0].parent == head
    assert hub.requests("commit")[0].status == 0


def test_a_cut_response_is_seen_as_such(hub: LocalHub) -> None:
    """Half of the body arrives, less than its `Content-Length`."""
    hub.add_model(MODEL, {"a": "0123456789"})
    hub.cut_response("resolve")
    with urllib.request.urlopen(f"{hub.endpoint}/{MODEL}/resolve/main/a") as response:
        assert response.headers["Content-Length"] == "10"
        with pytest.raises(Exception, match="IncompleteRead"):
            response.read()


def test_a_rival_commits_just_before(hub: LocalHub, api: HfApi) -> None:
    """The commit of someone else lands between reading and writing, so that the parent is stale."""
    sha = hub.add_model(MODEL, {"a": "0"})
    hub.rival_commit(MODEL, {"a": "rival"})
    with pytest.raises(HfHubHTTPError) as error:
        api.create_commit(MODEL, [add("a", "mine")], commit_message="Mine", parent_commit=sha)
    assert status_of(error) == 412
    assert [commit.author for commit in hub.commits(MODEL)][:2] == ["rival", "local-user"]


def test_slow_answers_do_not_hold_up_the_end() -> None:
    """A request that would wait for minutes ends with the hub."""
    problems: list[str] = []
    with LocalHub() as hub:
        hub.slow_down("whoami", delay_s=300)
        threads = threading.active_count()

        def ask() -> None:
            try:
                urllib.request.urlopen(f"{hub.endpoint}/api/whoami-v2", timeout=60).close()
            except (OSError, urllib.error.URLError) as error:
                problems.append(type(error).__name__)

        asking = threading.Thread(target=ask)
        asking.start()
        # The asking thread, and the one that answers: only then is there something to end.
        while threading.active_count() < threads + 2:
            time.sleep(0.01)
    asking.join(timeout=30)
    assert not asking.is_alive()
    assert problems


def test_disabled_pull_requests(hub: LocalHub, api: HfApi) -> None:
    """Where pull requests are disabled, opening one is a 403 and leaves no branch behind."""
    hub.add_model("other/model", {"a": "0"})
    hub.disable_pull_requests("other/model")
    with pytest.raises(HfHubHTTPError, match="disabled") as error:
        api.create_commit("other/model", [add("a", "1")], commit_message="Mine", create_pr=True)
    assert status_of(error) == 403
    assert not hub.pull_requests("other/model")


@pytest.mark.parametrize(("old", "new"), [("a/m", "b/m"), ("m", "b/m"), ("local-user/api", "local-user/models")])
def test_a_renamed_repository_is_found_under_its_old_name(
    hub: LocalHub, api: HfApi, tmp_path: Path, old: str, new: str
) -> None:
    """Requests for the old name are redirected, and the reply has the new id."""
    hub.add_model(old, {"a": "0"})
    hub.rename(old, new)
    assert api.repo_info(old, revision="main").id == new
    assert Path(api.hf_hub_download(old, "a", local_dir=tmp_path)).read_text() == "0"


def test_a_renamed_repository_takes_commits_under_its_old_name(hub: LocalHub, api: HfApi) -> None:
    """A commit to the old name is repeated at the new one, with its body."""
    hub.add_model(MODEL, {"a": "0"})
    hub.rename(MODEL, "local-user/new")
    api.create_commit(MODEL, [add("a", "1")], commit_message="Old name")
    assert hub.read("local-user/new", "a") == b"1"


def test_a_readme_in_lfs_has_no_metadata(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    """It downloads unchanged, stays in LFS after the next commit, and its front matter is not read."""
    hub.add_model(MODEL, {"README.md": CARD})
    assert api.model_info(MODEL).card_data is not None
    hub.store_as_lfs(MODEL)
    assert api.model_info(MODEL).card_data is None
    assert Path(api.hf_hub_download(MODEL, "README.md", local_dir=tmp_path)).read_text() == CARD
    api.create_commit(MODEL, [add("README.md", CARD + "more")], commit_message="More")
    assert hub.repo(MODEL).at("main").files["README.md"].lfs
    assert hub.read(MODEL, "README.md").endswith(b"more")


def test_metadata_errors_and_warnings_on_demand(hub: LocalHub, api: HfApi) -> None:
    """A refused card stops the commit before anything is sent; a warning does not."""
    head = hub.add_model(MODEL, {"README.md": CARD})
    hub.reject_metadata('"license" must be nicer', times=1)
    with pytest.raises(ValueError, match="must be nicer"):
        api.create_commit(MODEL, [add("README.md", CARD + "x")], commit_message="Card")
    assert hub.head(MODEL) == head
    hub.warn_of_metadata("be careful", times=1)
    with pytest.warns(UserWarning, match="be careful"):
        api.create_commit(MODEL, [add("README.md", CARD + "x")], commit_message="Card")
    assert hub.head(MODEL) != head


def test_a_mistake_of_the_hub_itself_is_raised() -> None:
    """An error inside the Hub is raised at the end of the block."""

    def break_down() -> None:
        raise ZeroDivisionError("inside")

    hub = LocalHub().__enter__()
    hub.before("whoami", break_down)
    with pytest.raises(OSError, match="closed connection"):
        urllib.request.urlopen(f"{hub.endpoint}/api/whoami-v2")
    with pytest.raises(RuntimeError, match="LocalHub itself") as error:
        hub.__exit__(None, None, None)
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_the_commit_itself_refuses_bad_metadata(hub: LocalHub, api: HfApi) -> None:
    """The commit checks the metadata too, for clients that do not check it first."""
    head = hub.add_model(MODEL, {"a": "0"})
    hub.strike(Fault("validate-yaml", status=200, times=None, body=b'{"errors": [], "warnings": []}'))
    with pytest.raises(HfHubHTTPError, match="license") as error:
        api.create_commit(MODEL, [add("README.md", "---\nlicense: nope\n---\n")], commit_message="Card")
    assert status_of(error) == 400
    assert hub.head(MODEL) == head
