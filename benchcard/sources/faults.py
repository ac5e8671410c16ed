"""Errors of the Hub while sources are resolved, as messages."""

from __future__ import annotations

from benchcard.errors import HubError, Mistake, SpecError


class asking_the_hub:
    """A block that asks the Hub for something; its refusals become errors that say what to do."""

    def __init__(self, name: str, place: str, what: str) -> None:
        self._name, self._place, self._what = name, place, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or not isinstance(error, Exception):
            return
        from huggingface_hub.errors import (
            GatedRepoError,
            HFValidationError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        if isinstance(error, HFValidationError):
            raise SpecError(
                Mistake(
                    self._place,
                    f"`{self._name[:80]}`",
                    f"a {self._what} on the Hub or a local path",
                    f"there is no such path here, and it can be no id: {str(error).splitlines()[0][:200]}",
                )
            ) from error
        if isinstance(error, GatedRepoError):
            raise HubError(
                f"{self._what} `{self._name}` is gated: accept its terms on its page and log in with `hf auth login`"
            ) from error
        if isinstance(error, RevisionNotFoundError):
            raise SpecError(
                Mistake(
                    self._place,
                    f"`{self._name}`",
                    "a revision that exists",
                    "the Hub has the repository, but not this revision",
                )
            ) from error
        if isinstance(error, RepositoryNotFoundError):
            hint = (
                f"there is no such path here, and the Hub has no {self._what} of that name that you may read; "
                "a private one needs `hf auth login`"
            )
            raise SpecError(
                Mistake(self._place, f"`{self._name}`", f"a {self._what} on the Hub or a local path", hint)
            ) from error
        # The client's HTTP library is httpx or another, by version; all that it raises is an HTTPError of its own.
        of_http = any(base.__name__ == "HTTPError" for base in type(error).__mro__)
        if of_http or isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)):
            raise HubError(
                f"the Hub cannot be reached for {self._what} `{self._name}`, and there is no such local path: "
                "check the network and HF_ENDPOINT, or give a local folder "
                f"({type(error).__name__}: {str(error).splitlines()[0]})"
            ) from error
        # What the client raises where it reads an answer that is not of the form that it expects.
        if isinstance(error, (AssertionError, AttributeError, LookupError, TypeError, ValueError)):
            raise HubError(
                f"the Hub's answer for {self._what} `{self._name}` cannot be read ({type(error).__name__}: {error}): "
                "something between here and the Hub may have answered in its place; check the network, the proxy and "
                "HF_ENDPOINT, or give a local folder"
            ) from error
