"""What went wrong between here and the Hub, and what is to be done about it.

Owns the reading of the client's errors: which of them pass by waiting, which say that someone else was first, which say
no. Knows no repository and writes nothing; `hub` acts on what is found here. Texts that come out of here hold no token,
whatever a server put into its answer.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final, TypeVar

from huggingface_hub import get_session, get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

from benchcard.errors import HubError
from benchcard.utils.progress import download_progress

T = TypeVar("T")

# The base class of all that the client's HTTP library raises: httpx up to huggingface_hub 1, httpx2 from 2 on. It is
# asked of the client's own error, so that neither has to be named.
TransportError: Final[type[Exception]] = next(
    (base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"), HfHubHTTPError
)
# All that calls to the client raise. RuntimeError: it wraps whatever went wrong while a file was uploaded.
CLIENT_ERRORS: Final = (TransportError, EntryNotFoundError, OSError, ValueError, RuntimeError)
# What the client raises where it reads an answer that is not of the form that it expects.
_UNREADABLE: Final = (AssertionError, AttributeError, LookupError, TypeError, ValueError)
_SHOWN_CHARACTERS: Final = 80
LOGIN: Final = "log in with `hf auth login`, or set HF_TOKEN"


class UnexpectedAnswerError(ValueError):
    """The Hub, or something in its place, answered with success and with something that is no answer."""


class Fault(Enum):
    """The kinds of trouble, by what can be done about them."""

    PASSING = "the Hub could not be reached, or not answer; later it may"
    RATE_LIMIT = "too many requests; the Hub says when to come back"
    CONFLICT = "someone else has committed meanwhile"
    FORBIDDEN = "this token may not do that"
    NO_REPO = "there is no such repository, or this token may not see it"
    FINAL = "asking again will not help"

    @property
    def may_pass(self) -> bool:
        """Whether the same may work a moment later."""
        return self in (Fault.PASSING, Fault.RATE_LIMIT, Fault.CONFLICT)


@dataclass(frozen=True)
class Diagnosis:
    """One error of the client: its kind, what is known about it as text without tokens, and how long to wait.

    Attributes:
        kind: what kind of trouble it is.
        text: what happened, for people.
        wait_s: seconds that the Hub asks to wait; None where it does not say.
    """

    kind: Fault
    text: str
    wait_s: float | None = None


@dataclass(frozen=True)
class Patience:
    """How long a push keeps trying.

    Attributes:
        attempts: how often the same thing is tried at most.
        first_wait_s: the wait before the second attempt; it doubles each time, and is varied so that rivals part ways.
        longest_wait_s: the longest wait for a rate limit. The Hub counts requests in windows of five minutes.
            Source: https://huggingface.co/docs/hub/rate-limits
    """

    attempts: int = 5
    first_wait_s: float = 1.0
    longest_wait_s: float = 300.0

    def wait(self, attempt: int, diagnosis: Diagnosis) -> None:
        """Sleeps before the attempt that follows number `attempt`: as long as the Hub asks, or longer each time.

        Raises:
            HubError: the Hub asks for more than `longest_wait_s`.
        """
        asked = diagnosis.wait_s
        if asked is not None and asked > self.longest_wait_s:
            raise HubError(f"{diagnosis.text}\nThe Hub asks to wait {asked:,.0f} s: do the same again after that.")
        own = min(self.first_wait_s * 2 ** (attempt - 1), self.longest_wait_s) * random.uniform(0.5, 1.0)
        time.sleep(own if asked is None else asked + own / 10)


def redacted(text: str, token: str | bool | None = None) -> str:
    """`text` without what is, or looks like, a token."""
    if secret := token_in_use(token):
        text = text.replace(secret, "<token>")
    text = re.sub(r"\b(?:hf|api_org)_[\w.\-]{20,}", "<token>", text)
    return re.sub(r"(?i)\b(bearer)\s+[^\s\"',;]+", r"\1 <token>", text)


def token_in_use(token: str | bool | None) -> str | None:
    """Return the token that the client sends: the one given, or that of HF_TOKEN or `hf auth login`."""
    if isinstance(token, str):
        return token
    return None if token is False else get_token()


def ask(action: Callable[[], T], endpoint: str, token: str | bool | None) -> T:
    """Return what `action` returns, which asks the Hub through the client.

    The client waits by itself where the Hub is busy, for as long as an answer says; here such an answer is an error
    at once, so that `Patience` decides.

    Raises:
        UnexpectedAnswerError: an answer has the status of success and cannot be read; the text says which request it
            answers and how it begins.
    """
    answers: list[Any] = []

    def look(answer: Any) -> None:
        if not str(answer.request.url).startswith(endpoint):
            return
        answers.append(answer)
        if answer.status_code == 429 or (answer.status_code >= 500 and "retry-after" in answer.headers):
            answer.read()
            hf_raise_for_status(answer)

    hooks = get_session().event_hooks["response"]
    hooks.append(look)
    try:
        with download_progress():
            return action()
    except _UNREADABLE as error:
        if isinstance(error, HfHubHTTPError) or not answers or not answers[-1].is_success:
            raise
        raise UnexpectedAnswerError(redacted(_described(answers[-1], error), token)) from error
    finally:
        hooks.remove(look)


def _described(answer: Any, error: Exception) -> str:
    """Return what was asked, and what came back that could not be read."""
    try:
        body = answer.text
    except RuntimeError:
        # It was read in pieces, and not kept.
        body = ""
    shown = " ".join(body[: 2 * _SHOWN_CHARACTERS].split())[:_SHOWN_CHARACTERS] or "an empty body"
    request, reason = f"{answer.request.method} {answer.request.url.path}", f"{type(error).__name__}: {error}"
    return (
        f"The answer to {request} cannot be read (status {answer.status_code}, {shown}; {reason})."
        " Something between here and the Hub may have answered in its place: check the network, the proxy and "
        "HF_ENDPOINT."
    )


def diagnose(error: BaseException, token: str | bool | None = None) -> Diagnosis:
    """What `error` from the client means; it, or what it was raised from, is looked at."""
    chain = [error]
    # A failed download comes as ValueError, a failed upload as RuntimeError: what happened is behind it.
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    for link in chain:
        if isinstance(link, HfHubHTTPError):
            return _diagnose_answer(link, token)
    text = redacted("; ".join(dict.fromkeys(str(link) or type(link).__name__ for link in chain)), token)
    if any(isinstance(link, OfflineModeIsEnabled) for link in chain):
        return Diagnosis(Fault.FINAL, f"huggingface_hub is offline (HF_HUB_OFFLINE is set): {text}")
    if isinstance(error, LocalTokenNotFoundError):
        return Diagnosis(Fault.FINAL, f"The Hub asks for a token, and there is none: {LOGIN}.")
    if any(isinstance(link, (TransportError, ConnectionError, TimeoutError)) for link in chain):
        return Diagnosis(Fault.PASSING, f"The Hub could not be reached: {text}")
    if isinstance(error, UnexpectedAnswerError):
        return Diagnosis(Fault.PASSING, str(error))
    if isinstance(error, json.JSONDecodeError):
        # An error page of something that stands before the Hub.
        return Diagnosis(Fault.PASSING, "The Hub's answer could not be read: it is no JSON.")
    return Diagnosis(Fault.FINAL, text)


def diagnose_commit(error: BaseException, token: str | bool | None = None) -> Diagnosis:
    """What went wrong with a commit; what is wrong with the metadata is said by field, and never tried again."""
    head, _, rest = str(error).partition("\n")
    if isinstance(error, ValueError) and head.startswith("Invalid metadata") and rest:
        return Diagnosis(Fault.FINAL, f"the Hub does not take the card's metadata:\n{redacted(rest, token)}")
    return diagnose(error, token)


def _diagnose_answer(error: HfHubHTTPError, token: str | bool | None) -> Diagnosis:
    status, text = error.response.status_code, redacted(str(error), token)
    if status == 401:
        reason = (
            "The Hub did not accept the token (401): it is wrong, has expired or was revoked"
            if token_in_use(token)
            else "The Hub asks for a token, and there is none (401)"
        )
        return Diagnosis(Fault.FINAL, f"{reason}: {LOGIN}.\n{text}")
    if isinstance(error, (GatedRepoError, DisabledRepoError)):
        return Diagnosis(Fault.FINAL, text)
    if isinstance(error, RepositoryNotFoundError):
        return Diagnosis(Fault.NO_REPO, text)
    if status == 403:
        return Diagnosis(Fault.FORBIDDEN, text)
    if status in (409, 412):
        return Diagnosis(Fault.CONFLICT, text)
    if status == 429:
        return Diagnosis(Fault.RATE_LIMIT, text, _asked_wait_s(error))
    if status == 408 or status >= 500:
        return Diagnosis(Fault.PASSING, text, _asked_wait_s(error))
    return Diagnosis(Fault.FINAL, text)


def _asked_wait_s(error: HfHubHTTPError) -> float | None:
    """Return the seconds that an answer asks to wait, by `RateLimit` or `Retry-After` (seconds or a date).

    None where it asks for none, or for something that is no time to come: below 0, a text, or more than nine digits.

    Source: https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-09.html; RFC 9110, 10.2.3.
    """
    headers = error.response.headers
    limit = re.search(r"\br\s*=\s*0\s*;.*?\bt\s*=\s*([0-9]{1,9})\s*(?:[;,]|$)", str(headers.get("ratelimit") or ""))
    after = str(headers.get("retry-after") or "").strip()
    seconds = limit[1] if limit is not None else after
    if re.fullmatch("[0-9]{1,9}", seconds):
        return float(seconds)
    try:
        moment = parsedate_to_datetime(after)
    except (LookupError, OverflowError, TypeError, ValueError):
        return None
    zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    wait_s = (zoned - datetime.now(UTC)).total_seconds()
    # A moment that is over asks for nothing: the usual waits apply.
    return wait_s if wait_s > 0 else None


def persist(action: Callable[[], T], what: str, patience: Patience, endpoint: str, token: str | bool | None) -> T:
    """What `action` gives; trouble that passes by waiting is waited out.

    Args:
        action: asks the Hub for something, and changes nothing there that may not be changed twice.
        what: what it does, for the message.
        patience: how often, and with what waits.
        endpoint: of the Hub.
        token: the token that is used, to keep it out of messages.

    Raises:
        HubError: it did not pass, or it is of another kind.
    """
    attempt = 1
    while True:
        try:
            return ask(action, endpoint, token)
        except CLIENT_ERRORS as error:
            diagnosis = diagnose(error, token)
        if diagnosis.kind not in (Fault.PASSING, Fault.RATE_LIMIT):
            raise HubError(f"{what} failed: {diagnosis.text}")
        if attempt >= patience.attempts:
            raise HubError(f"{what} failed: {diagnosis.text}\nRun the same again to go on.")
        patience.wait(attempt, diagnosis)
        attempt += 1
