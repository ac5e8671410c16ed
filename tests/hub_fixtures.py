"""Fixtures of the tests of `benchcard.hub`: a running `LocalHub`, a push to it, and a card with one section."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from benchcard.errors import HubError
from benchcard.hub.faults import RetryPolicy
from benchcard.hub.files import Pushed
from benchcard.hub.push import push
from benchcard.testing import LocalHub

Push = Callable[..., Pushed]
MINE = "local-user/model"
THEIRS = "other/model"
CARD = "---\nlicense: mit\n---\n# A model\n"
FILES = {"benchcard/run/results.csv": b"a,b\n1,2\n"}
BEGIN, END = "<!-- begin -->", "<!-- end -->"


class Card:
    """A card with one section: it keeps the text around the section, and records the texts that it receives."""

    def __init__(self, section: str = "fast") -> None:
        self.section = section
        self.got: list[str | None] = []

    def __call__(self, text: str | None, _paths: Collection[str] = ()) -> str:
        self.got.append(text)
        before, _, rest = (CARD if text is None else text).partition(BEGIN)
        return f"{before}{BEGIN}{self.section}{END}{rest.partition(END)[2]}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with LocalHub() as running:
        yield running


@pytest.fixture
def pushed(hub: LocalHub) -> Push:
    """`push` to the local Hub, with files and a retry policy for tests."""

    def call(repo_id: str = MINE, card: Callable[..., str] | None = None, **more: Any) -> Pushed:
        given = {"endpoint": hub.endpoint, "token": hub.token, "retry_policy": RetryPolicy(5, 0.001), **more}
        return push(repo_id, given.pop("files", FILES), card or Card(), **given)

    return call


def section(text: str, inside: str = "fast") -> str:
    return f"{text}{BEGIN}{inside}{END}"


def error_of(call: Push, *given: Any, **more: Any) -> str:
    """Return the text of the error of a push."""
    with pytest.raises(HubError) as error:
        call(*given, **more)
    # The user sees the text alone, without the errors of the client.
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__ or error.value.__context__ is None
    return str(error.value)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace `sleep` in benchcard and in the client, and return the list of the seconds asked for."""
    kept: list[float] = []
    for module in ("benchcard.hub.faults", "huggingface_hub.utils._http"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(sleep=kept.append))
    return kept
