"""`benchcard.testing.LocalHub`: its behavior for the real client, and its end."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

import benchcard.testing
from benchcard.testing import LocalHub
from benchcard.testing.hub.store import Blob, tree_ids

# huggingface_hub itself hands LFS content to httpx in a way that httpx has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload:DeprecationWarning")

CARD = "---\nlicense: mit\n---\n# A model\n"
MODEL = "local-user/model"


def api_of(hub: LocalHub, token: str | bool) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=token)


def add(path: str, content: bytes | str) -> CommitOperationAdd:
    return CommitOperationAdd(path, content.encode() if isinstance(content, str) else content)


def status_of(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


# What a client does


def test_whoami_knows_the_token_and_no_other(hub: LocalHub, api: HfApi) -> None:
    """The token belongs to the first user; an unknown token is refused with 401."""
    assert api.whoami()["name"] == hub.user == "local-user"
    with pytest.raises(HfHubHTTPError, match="Invalid user token") as error:
        api_of(hub, "hf_wrong").whoami()
    assert status_of(error) == 401


def test_create_and_delete_a_repo(hub: LocalHub, api: HfApi) -> None:
    """A new repository has one commit; creating it again needs `exist_ok`; deleting a missing one fails."""
    assert api.create_repo(MODEL, private=True).repo_id == MODEL
    assert hub.repo(MODEL).private
    assert list(hub.files(MODEL)) == [".gitattributes"]
    assert api.create_repo(MODEL, exist_ok=True).repo_id == MODEL
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo(MODEL)
    assert status_of(error) == 409
    api.delete_repo(MODEL)
    assert not hub.exists(MODEL)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(MODEL)


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_commit_with_its_parent_is_read_back(hub: LocalHub, api: HfApi, kind: str) -> None:
    """Downloads, listings and history return what `create_commit` sent, regular and LFS."""
    api.create_repo(MODEL, repo_type=kind)
    before = api.repo_info(MODEL, repo_type=kind).sha
    weights = bytes(range(256)) * 8
    made = api.create_commit(
        MODEL,
        [add("README.md", CARD), add("onnx/model.onnx", weights)],
        commit_message="First",
        commit_description="With words",
        parent_commit=before,
        repo_type=kind,
    )
    info = api.repo_info(MODEL, repo_type=kind, files_metadata=True)
    assert info.sha == made.oid == hub.head(MODEL, kind) != before
    siblings = {sibling.rfilename: sibling for sibling in info.siblings}
    assert siblings["onnx/model.onnx"].lfs.size == len(weights)
    assert siblings["README.md"].lfs is None
    assert siblings["README.md"].size == len(CARD)
    assert info.card_data.to_dict() == {"license": "mit"}
    assert [commit.title for commit in api.list_repo_commits(MODEL, repo_type=kind)] == ["First", "initial commit"]
    tree = {entry.path for entry in api.list_repo_tree(MODEL, repo_type=kind, recursive=True)}
    assert tree == {".gitattributes", "README.md", "onnx", "onnx/model.onnx"}
    assert {entry.path for entry in api.list_repo_tree(MODEL, "onnx", repo_type=kind)} == {"onnx/model.onnx"}
    entries = api.get_paths_info(MODEL, ["onnx", "README.md", "none"], repo_type=kind, expand=True)
    assert [entry.path for entry in entries] == ["onnx", "README.md"]
    assert entries[0].last_commit.oid == made.oid


def test_downloads_carry_what_the_client_needs(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    """A download has commit and etag; a missing file, revision and repository raise different errors."""
    sha = hub.add_model(MODEL, {"README.md": CARD, "w.bin": b"\0\1\2"})
    for name in ("README.md", "w.bin"):
        path = api.hf_hub_download(MODEL, name, revision=sha, local_dir=tmp_path)
        assert Path(path).read_bytes() == hub.read(MODEL, name)
    url = f"{hub.endpoint}/{MODEL}/resolve/main/"
    assert api.get_hf_file_metadata(url=url + "w.bin").etag == Blob(b"\0\1\2", lfs=True).sha256
    assert api.get_hf_file_metadata(url=url + "README.md").commit_hash == sha
    with pytest.raises(RemoteEntryNotFoundError) as missing:
        api.hf_hub_download(MODEL, "none.txt", local_dir=tmp_path)
    assert missing.value.response.headers["X-Repo-Commit"] == sha
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(MODEL, "README.md", revision="nope", local_dir=tmp_path)
    with pytest.raises(RepositoryNotFoundError):
        api.hf_hub_download("local-user/none", "README.md", local_dir=tmp_path / "none")


@pytest.mark.parametrize(
    ("asked", "got"), [("bytes=2-4", b"cde"), ("bytes=7-", b"hij"), ("bytes=-2", b"ij"), ("bytes=8-99", b"ij")]
)
def test_byte_ranges(hub: LocalHub, asked: str, got: bytes) -> None:
    """A part of a file is a 206 with its range."""
    hub.add_model(MODEL, {"a.txt": b"abcdefghij"})
    request = urllib.request.Request(f"{hub.endpoint}/{MODEL}/resolve/main/a.txt", headers={"Range": asked})
    with urllib.request.urlopen(request) as response:
        assert (response.status, response.read()) == (206, got)
        assert response.headers["Content-Range"].endswith("/10")


def test_a_range_beyond_the_end_is_refused(hub: LocalHub) -> None:
    """A range after the last byte is a 416."""
    hub.add_model(MODEL, {"a.txt": b"abc"})
    request = urllib.request.Request(f"{hub.endpoint}/{MODEL}/resolve/main/a.txt", headers={"Range": "bytes=3-"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request)
    with error.value as refused:
        assert refused.code == 416


def test_a_stale_parent_is_refused_and_a_short_one_taken(hub: LocalHub, api: HfApi) -> None:
    """A commit on an old parent is a 412 and changes nothing; seven digits of a parent are enough."""
    old = hub.add_model(MODEL, {"a.txt": "1"})
    new = hub.commit(MODEL, {"a.txt": "2"})
    with pytest.raises(HfHubHTTPError) as error:
        api.create_commit(MODEL, [add("a.txt", "3")], commit_message="late", parent_commit=old)
    assert status_of(error) == 412
    assert hub.head(MODEL) == new
    api.create_commit(MODEL, [add("a.txt", "3")], commit_message="in time", parent_commit=new[:7])
    assert hub.read(MODEL, "a.txt") == b"3"


def test_unchanged_content_is_no_commit(hub: LocalHub, api: HfApi) -> None:
    """The client skips files whose id the hub already has, in git and in LFS."""
    hub.add_model(MODEL, {"README.md": CARD, "w.onnx": b"\0"})
    api.create_commit(MODEL, [add("README.md", CARD), add("w.onnx", b"\0")], commit_message="same")
    assert not hub.requests("commit")
    assert not hub.requests("lfs-upload")


def test_files_and_folders_are_deleted(hub: LocalHub, api: HfApi) -> None:
    """Deleting a folder deletes its files; deleting a missing file is a 404 that changes nothing."""
    hub.add_model(MODEL, {"a/1": "x", "a/2": "y", "b": "z"})
    api.create_commit(MODEL, [CommitOperationDelete("a/"), CommitOperationDelete("b")], commit_message="Clean")
    assert list(hub.files(MODEL)) == [".gitattributes"]
    head = hub.head(MODEL)
    with pytest.raises(RemoteEntryNotFoundError):
        api.create_commit(MODEL, [CommitOperationDelete("b")], commit_message="Again")
    assert hub.head(MODEL) == head


def test_a_pull_request_from_commit_to_merge(hub: LocalHub, api: HfApi) -> None:
    """A user who may not write opens a pull request and adds to it; the owner merges it."""
    hub.add_model("other/model", {"README.md": CARD, "b": "0"})
    head = hub.head("other/model")
    with pytest.raises(HfHubHTTPError) as error:
        api.create_commit("other/model", [add("a", "1")], commit_message="Mine")
    assert status_of(error) == 403
    made = api.create_commit("other/model", [add("a", "1")], commit_message="Mine", create_pr=True, parent_commit=head)
    assert made.pr_revision == "refs/pr/1"
    api.create_commit("other/model", [add("a", "2")], commit_message="More", revision=made.pr_revision)
    filters = {"author": hub.user, "discussion_type": "pull_request", "discussion_status": "open"}
    assert [pull.num for pull in api.get_repo_discussions("other/model", **filters)] == [1]
    details = api.get_discussion_details("other/model", 1)
    assert "+2" in details.diff
    assert details.conflicting_files == []
    assert "a" not in hub.files("other/model")
    with pytest.raises(HfHubHTTPError) as refused:
        api.merge_pull_request("other/model", 1)
    assert status_of(refused) == 403
    hub.commit("other/model", {"b": "1"})
    api_of(hub, hub.add_user("other")).merge_pull_request("other/model", 1)
    assert (hub.read("other/model", "a"), hub.read("other/model", "b")) == (b"2", b"1")
    assert hub.pull_requests("other/model")[0].status == "merged"
    assert hub.commits("other/model")[0].title == "Mine (#1)"
    assert list(api.get_repo_discussions("other/model", **filters)) == []


def test_a_conflicting_pull_request_is_not_merged(hub: LocalHub, api: HfApi) -> None:
    """Where main changed the same file since, the pull request lists it and merging is a 409."""
    hub.add_model(MODEL, {"a": "0"})
    api.create_commit(MODEL, [add("a", "mine")], commit_message="Mine", create_pr=True)
    head = hub.commit(MODEL, {"a": "theirs"})
    assert api.get_discussion_details(MODEL, 1).conflicting_files == ["a"]
    with pytest.raises(HfHubHTTPError) as error:
        api.merge_pull_request(MODEL, 1)
    assert status_of(error) == 409
    assert hub.head(MODEL) == head


def test_a_closed_pull_request_takes_no_commit(hub: LocalHub, api: HfApi) -> None:
    """A pull request that was closed is not listed as open and refuses commits."""
    hub.add_model(MODEL, {"a": "0"})
    made = api.create_commit(MODEL, [add("a", "1")], commit_message="Mine", create_pr=True)
    api.change_discussion_status(MODEL, 1, "closed")
    assert list(api.get_repo_discussions(MODEL, discussion_status="open")) == []
    assert [one.status for one in api.get_repo_discussions(MODEL, discussion_status="closed")] == ["closed"]
    with pytest.raises(HfHubHTTPError) as error:
        api.create_commit(MODEL, [add("a", "2")], commit_message="Late", revision=made.pr_revision)
    assert status_of(error) == 403


def test_discussions_hold_comments(hub: LocalHub, api: HfApi) -> None:
    """A discussion starts with one comment and accepts more; a pull request without changes is a draft."""
    hub.add_model(MODEL, {"a": "0"})
    assert api.create_discussion(MODEL, "A question", description="Why?").events[0].content == "Why?"
    assert api.comment_discussion(MODEL, 1, "Because.").content == "Because."
    assert api.create_pull_request(MODEL, "A draft").status == "draft"
    assert [one.num for one in api.get_repo_discussions(MODEL, discussion_type="discussion")] == [1]


def test_branches_tags_and_refs(hub: LocalHub, api: HfApi) -> None:
    """A branch takes commits of its own; tags and pull requests are listed beside it."""
    sha = hub.add_model(MODEL, {"a": "0"})
    api.create_branch(MODEL, branch="dev")
    api.create_tag(MODEL, tag="v1")
    api.create_commit(MODEL, [add("a", "1")], commit_message="On dev", revision="dev")
    api.create_commit(MODEL, [add("a", "2")], commit_message="Asked", create_pr=True)
    refs = api.list_repo_refs(MODEL, include_pull_requests=True)
    assert {ref.name: ref.target_commit == sha for ref in refs.branches} == {"main": True, "dev": False}
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", sha)]
    assert [ref.ref for ref in refs.pull_requests] == ["refs/pr/1"]
    assert hub.read(MODEL, "a", revision="dev") == b"1"


def test_long_listings_come_in_pages(hub: LocalHub, api: HfApi) -> None:
    """A listing of more than a thousand entries has several pages."""
    hub.add_model(MODEL, {f"d/{number:04}.txt": "x" for number in range(1203)})
    entries = list(api.list_repo_tree(MODEL, recursive=True))
    assert len(entries) == len({entry.path for entry in entries}) == 1203 + 2
    assert len(hub.requests("tree")) == 2


def test_the_file_system_reads_through_it(hub: LocalHub) -> None:
    """`HfFileSystem`, which `datasets` reads through, lists and opens files."""
    hub.add_dataset("someone/data", {"data/train.csv": "a,b\n1,2\n"})
    files = HfFileSystem(endpoint=hub.endpoint, token=hub.token, skip_instance_cache=True)
    assert files.ls("datasets/someone/data/data", detail=False) == ["datasets/someone/data/data/train.csv"]
    assert files.read_text("datasets/someone/data/data/train.csv") == "a,b\n1,2\n"


# Who may do what


def test_private_repositories_are_seen_by_their_owner_only(hub: LocalHub, api: HfApi) -> None:
    """For another user, with or without a token, the repository does not exist."""
    hub.add_model(MODEL, {"a": "0"}, private=True)
    assert api.repo_exists(MODEL)
    assert not api_of(hub, hub.add_user("other")).repo_exists(MODEL)
    assert not api_of(hub, False).repo_exists(MODEL)


def test_a_token_that_only_reads(hub: LocalHub) -> None:
    """A read token reads and may neither commit nor open a pull request with changes."""
    hub.add_model("reader/model", {"a": "0"})
    reader = api_of(hub, hub.add_user("reader", role="read"))
    assert reader.repo_info("reader/model").sha == hub.head("reader/model")
    for create_pr in (False, True):
        with pytest.raises(HfHubHTTPError) as error:
            reader.create_commit("reader/model", [add("a", "1")], commit_message="No", create_pr=create_pr)
        assert status_of(error) == 403


def test_organizations(hub: LocalHub) -> None:
    """A member writes to the organization's repositories; nobody creates in a foreign namespace."""
    member = api_of(hub, hub.add_user("member", organizations=("lab",)))
    member.create_repo("lab/model")
    member.create_commit("lab/model", [add("a", "1")], commit_message="Ours")
    with pytest.raises(HfHubHTTPError) as error:
        member.create_repo("local-user/theirs")
    assert status_of(error) == 403


# Identity


def test_ids_are_those_of_git(tmp_path: Path) -> None:
    """Blob and tree ids equal what git computes for the same files."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    files = {"b/c.txt": b"y", "b/d/e": b"", "a/z": b"1", "a-b": b"2", "a.c": b"3", "README.md": "é\r\n".encode()}
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)

    def run(*words: str) -> str:
        plain = [git, "-c", "core.autocrlf=false", *words]
        return subprocess.run(plain, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    run("init", "--quiet")
    run("add", "--all")
    assert tree_ids({path: Blob(content) for path, content in files.items()})[""] == run("write-tree")
    assert Blob(files["README.md"]).oid == run("hash-object", "README.md")


def test_commit_ids_follow_from_what_was_done() -> None:
    """The same actions on two Hubs give the same commit ids; another content gives another id."""

    def play(content: str) -> list[str]:
        with LocalHub() as hub:
            hub.add_model(MODEL, {"a": "0"})
            hub.commit(MODEL, {"a": content})
            return [commit.oid for commit in hub.commits(MODEL)]

    assert play("1") == play("1")
    assert play("1")[0] != play("2")[0]
    assert play("1")[1:] == play("2")[1:]


def test_nothing_stays_behind() -> None:
    """After the block no thread, port or folder is left, although the client keeps its connection open."""
    threads = threading.active_count()
    with LocalHub() as hub:
        home = Path(hub.environment()["HF_HOME"])
        assert home.is_dir()
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.whoami()
        endpoint = hub.endpoint
    assert not home.exists()
    assert threading.active_count() == threads
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{endpoint}/api/whoami-v2", timeout=5)
    del hub
    gc.collect()


def test_it_answers_only_inside_its_block() -> None:
    """Before and after the `with` block there is no endpoint."""
    with pytest.raises(RuntimeError, match="with"):
        _ = LocalHub().endpoint


def test_tokens_are_not_shown(hub: LocalHub, api: HfApi) -> None:
    """The record of requests and users contains no token."""
    api.whoami()
    assert hub.requests()[0].user == "local-user"
    assert hub.token not in repr(hub.requests()) + repr(hub._api.users.values())


def test_the_package_loads_names_when_asked() -> None:
    """`benchcard.testing` lists its names without importing their modules."""
    assert {"Fault", "LocalHub", "SeenRequest"} < set(benchcard.testing.__all__) == set(dir(benchcard.testing))
    with pytest.raises(AttributeError, match="Nothing"):
        _ = benchcard.testing.Nothing
    code = "import sys, benchcard.testing; print(sorted(m for m in sys.modules if m.startswith('benchcard.testing')))"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == "['benchcard.testing']"
