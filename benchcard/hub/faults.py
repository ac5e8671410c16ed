"""Errors of the Hub's client: what they mean, when a call is worth repeating, and what the user can do.

Leaves the reaction to an error to `repository` and `push`. No text from this module contains a token, even if the
server's answer does.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from huggingface_hub import HfApi, errors, get_session, get_token
from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

from benchcard.errors import HubError, Mistake, SpecError
from benchcard.utils.progress import download_progress

if TYPE_CHECKING:
    from httpx2 import Response

T = TypeVar("T")
Token: TypeAlias = str | bool | None
"""A token; None and True mean the one of HF_TOKEN or `hf auth login`, False means no token."""

# The base class of all errors of the client's HTTP library: httpx up to huggingface_hub 1, httpx2 from version 2 on.
TransportError: Final[type[Exception]] = next(
    (base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"), errors.HfHubHTTPError
)
# All errors that a call to the client raises. It wraps errors during an upload in RuntimeError.
CLIENT_ERRORS: Final = (TransportError, errors.EntryNotFoundError, OSError, ValueError, RuntimeError)
# What the client raises when an answer does not have the form that it expects.
_UNREADABLE: Final = (AssertionError, AttributeError, LookupError, TypeError, ValueError)
_CHECK_NETWORK: Final = (
    "A proxy or another server may have answered in place of the Hub: check the network, the proxy and HF_ENDPOINT."
)
LOGIN: Final = "log in with `hf auth login`, or set HF_TOKEN"


class UnexpectedAnswerError(ValueError):
    """An answer with a success status that cannot be read."""


class FaultKind(Enum):
    """The kinds of failed calls, by what can be done about them."""

    UNAVAILABLE = "the Hub cannot be reached or cannot answer at the moment"
    RATE_LIMIT = "too many requests; the Hub says how long to wait"
    CONFLICT = "someone else committed in the meantime"
    FORBIDDEN = "the token does not have the right"
    NO_REPOSITORY = "the repository does not exist, or the token may not see it"
    NO_REVISION = "the repository has no such revision"
    INVALID_ID = "the name cannot be the id of a repository"
    FINAL = "another error, for which a retry does not help"

    @property
    def is_temporary(self) -> bool:
        """Whether the same call may succeed a moment later."""
        return self in (FaultKind.UNAVAILABLE, FaultKind.RATE_LIMIT, FaultKind.CONFLICT)


@dataclass(frozen=True)
class Diagnosis:
    """The meaning of an error of the client: what happened (tokens removed), and how long the Hub asks to wait."""

    kind: FaultKind
    text: str
    wait_s: float | None = None


@dataclass(frozen=True)
class RetryPolicy:
    """How often a failed call is repeated, and how long to wait before each attempt.

    The wait doubles with each attempt and has a random part, so that two clients in conflict do not retry at the same
    time. The Hub counts requests in windows of five minutes. Source: https://huggingface.co/docs/hub/rate-limits
    """

    attempts: int = 5
    first_wait_s: float = 1.0
    longest_wait_s: float = 300.0

    def wait(self, attempt: int, diagnosis: Diagnosis) -> None:
        """Sleep after the failed attempt number `attempt`, for at least as long as the Hub asks.

        Raises:
            HubError: The Hub asks for more than `longest_wait_s`.
        """
        requested = diagnosis.wait_s
        if requested is not None and requested > self.longest_wait_s:
            raise HubError(f"{diagnosis.text}\nThe Hub asks to wait {requested:,.0f} s: try again after that.")
        backoff = min(self.first_wait_s * 2 ** (attempt - 1), self.longest_wait_s) * random.uniform(0.5, 1.0)
        time.sleep(backoff if requested is None else requested + backoff / 10)


def redacted(text: str, token: Token = None) -> str:
    """Return `text` without the token in use and without anything that looks like a token."""
    if secret := token_in_use(token):
        text = text.replace(secret, "<token>")
    text = re.sub(r"\b(?:hf|api_org)_[\w.\-]{20,}", "<token>", text)
    return re.sub(r"(?i)\b(bearer)\s+[^\s\"',;]+", r"\1 <token>", text)


def token_in_use(token: Token) -> str | None:
    """Return the token that the client sends: the one given, or that of HF_TOKEN or `hf auth login`."""
    if isinstance(token, str):
        return token
    return None if token is False else get_token()


def call_hub(api: HfApi, action: Callable[[], T]) -> T:
    """Return the result of `action`, a call to the client `api`.

    The client itself sleeps for as long as the answer of a busy Hub asks. Here such an answer raises an error at once,
    so that a `RetryPolicy` decides how long to wait.

    Raises:
        UnexpectedAnswerError: An answer with a success status cannot be read. The text names the request.
    """
    responses: list[Response] = []

    def check(response: Response) -> None:
        if not str(response.request.url).startswith(api.endpoint):
            return
        responses.append(response)
        if response.status_code == 429 or (response.status_code >= 500 and "retry-after" in response.headers):
            response.read()
            hf_raise_for_status(response)

    hooks = get_session().event_hooks["response"]
    hooks.append(check)
    try:
        with download_progress():
            return action()
    except _UNREADABLE as error:
        if isinstance(error, errors.HfHubHTTPError) or not responses or not responses[-1].is_success:
            raise
        raise UnexpectedAnswerError(redacted(_unreadable(responses[-1], error), api.token)) from error
    finally:
        hooks.remove(check)


def _unreadable(response: Response, error: Exception) -> str:
    try:
        body = response.text
    except RuntimeError:
        # The client read it as a stream and did not keep it.
        body = ""
    shown = " ".join(body[:160].split())[:80] or "an empty body"
    return (
        f"The answer to {response.request.method} {response.request.url.path} cannot be read "
        f"(status {response.status_code}, {shown}; {type(error).__name__}: {error}). {_CHECK_NETWORK}"
    )


def call_with_retries(api: HfApi, action: Callable[[], T], purpose: str, retry_policy: RetryPolicy) -> T:
    """Return the result of a call that may safely be repeated; repeat it while the failure is temporary.

    Raises:
        HubError: The failure is not temporary, or the attempts are used up. The text begins with `purpose`.
    """
    attempt = 1
    while True:
        try:
            return call_hub(api, action)
        except CLIENT_ERRORS as error:
            diagnosis = diagnose(error, api.token)
        if diagnosis.kind not in (FaultKind.UNAVAILABLE, FaultKind.RATE_LIMIT):
            raise HubError(f"{purpose} failed: {diagnosis.text}")
        if attempt >= retry_policy.attempts:
            raise HubError(f"{purpose} failed: {diagnosis.text}\nRun it again to continue.")
        retry_policy.wait(attempt, diagnosis)
        attempt += 1


@contextmanager
def reporting_hub_errors(kind: str, name: str, place: str) -> Iterator[None]:
    """Turn errors of the client about a `model` or `data set` into errors that name its place in a spec.

    Raises:
        SpecError: The Hub has no such repository or revision, or the name cannot be the id of one.
        HubError: The Hub refused, could not be reached, or gave an answer that cannot be read.
    """
    try:
        yield
    except (*CLIENT_ERRORS, *_UNREADABLE) as error:
        diagnosis = diagnose(error)
        text, expected = diagnosis.text, f"a {kind} on the Hub or a local path"
        unseen = f"the Hub has no {kind} of that name that you may read; a private one needs `hf auth login`"
        mistakes = {
            FaultKind.INVALID_ID: (expected, f"no such local path exists, and the name cannot be an id: {text[:200]}"),
            FaultKind.NO_REVISION: ("a revision that exists", "the Hub has the repository, but not this revision"),
            FaultKind.NO_REPOSITORY: (expected, f"no such local path exists, and {unseen}"),
        }
        if diagnosis.kind in mistakes:
            raise SpecError(Mistake(place, f"`{name[:80]}`", *mistakes[diagnosis.kind])) from error
        if diagnosis.kind is FaultKind.FINAL and isinstance(error, _UNREADABLE) and error.__cause__ is None:
            text = f"The Hub's answer cannot be read ({type(error).__name__}: {text}). {_CHECK_NETWORK}"
        cache = ", or set HF_HUB_OFFLINE=1 to take what is in the cache" if diagnosis.kind.is_temporary else ""
        raise HubError(
            f"The {kind} `{name}` could not be read from the Hub: {text}\n"
            f"No such local path exists either; to work without the Hub, give a local folder{cache}."
        ) from error


def diagnose(error: BaseException, token: Token = None) -> Diagnosis:
    """Return what an error of the client, or the error that caused it, means."""
    chain = [error]
    # A failed download is raised as ValueError and a failed upload as RuntimeError: the cause says what happened.
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    for link in chain:
        if isinstance(link, errors.HfHubHTTPError):
            return _diagnose_response(link, token)
    text = redacted("; ".join(dict.fromkeys(str(link) or type(link).__name__ for link in chain)), token)
    if any(isinstance(link, errors.OfflineModeIsEnabled) for link in chain):
        return Diagnosis(FaultKind.FINAL, f"huggingface_hub is offline (HF_HUB_OFFLINE is set): {text}")
    if isinstance(error, errors.LocalTokenNotFoundError):
        return Diagnosis(FaultKind.FINAL, f"The Hub asks for a token, and there is none: {LOGIN}.")
    if any(isinstance(link, (TransportError, ConnectionError, TimeoutError)) for link in chain):
        return Diagnosis(FaultKind.UNAVAILABLE, f"The Hub could not be reached: {text}")
    if isinstance(error, UnexpectedAnswerError):
        return Diagnosis(FaultKind.UNAVAILABLE, str(error))
    if isinstance(error, json.JSONDecodeError):
        return Diagnosis(FaultKind.UNAVAILABLE, f"The Hub's answer cannot be read: it is not JSON. {_CHECK_NETWORK}")
    return Diagnosis(FaultKind.INVALID_ID if isinstance(error, errors.HFValidationError) else FaultKind.FINAL, text)


def diagnose_commit(error: BaseException, token: Token = None) -> Diagnosis:
    """Return what an error of a commit means; errors in the metadata are listed by field and are final."""
    # The client raises a plain ValueError, which can only be recognized by its text.
    head, _, fields = str(error).partition("\n")
    if isinstance(error, ValueError) and head.startswith("Invalid metadata") and fields:
        return Diagnosis(FaultKind.FINAL, f"the Hub rejects the metadata of the card:\n{redacted(fields, token)}")
    return diagnose(error, token)


def _diagnose_response(error: errors.HfHubHTTPError, token: Token) -> Diagnosis:
    status, text = error.response.status_code, redacted(str(error), token)
    kinds = {403: FaultKind.FORBIDDEN, 409: FaultKind.CONFLICT, 412: FaultKind.CONFLICT, 429: FaultKind.RATE_LIMIT}
    kind = kinds.get(status, FaultKind.UNAVAILABLE if status == 408 or status >= 500 else FaultKind.FINAL)
    if isinstance(error, errors.GatedRepoError):
        text = f"The repository is gated: accept its terms on its page, and {LOGIN}.\n{text}"
        return Diagnosis(FaultKind.FINAL, text)
    if isinstance(error, errors.RepositoryNotFoundError):
        kind = FaultKind.NO_REPOSITORY
    elif isinstance(error, errors.RevisionNotFoundError):
        kind = FaultKind.NO_REVISION
    elif isinstance(error, errors.DisabledRepoError):
        kind = FaultKind.FINAL
    if status == 401:
        reason = "The Hub asks for a token, and there is none (401)"
        if token_in_use(token):
            reason = "The Hub did not accept the token (401): it is wrong, has expired or was revoked"
        return Diagnosis(kind, f"{reason}: {LOGIN}.\n{text}")
    is_busy = kind in (FaultKind.UNAVAILABLE, FaultKind.RATE_LIMIT)
    return Diagnosis(kind, text, _requested_wait_s(error) if is_busy else None)


def _requested_wait_s(error: errors.HfHubHTTPError) -> float | None:
    """Return the seconds that the headers `RateLimit` or `Retry-After` (seconds or a date) ask to wait.

    None where they ask for no wait, or for an unusable one: negative, in the past, not a number, or of more than nine
    digits.

    Source: https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-09.html; RFC 9110, 10.2.3.
    """
    headers = error.response.headers
    limit = re.search(r"\br\s*=\s*0\s*;.*?\bt\s*=\s*([0-9]{1,9})\s*(?:[;,]|$)", str(headers.get("ratelimit") or ""))
    after = str(headers.get("retry-after") or "").strip()
    seconds = limit[1] if limit is not None else after
    if re.fullmatch("[0-9]{1,9}", seconds):
        return float(seconds)
    try:
        date = parsedate_to_datetime(after)
    except (LookupError, OverflowError, TypeError, ValueError):
        return None
    wait_s = ((date if date.tzinfo is not None else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return wait_s if wait_s > 0 else None
