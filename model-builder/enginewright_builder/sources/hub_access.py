"""A repository of models or of data sets on a Hugging Face hub, at a commit. HF_ENDPOINT names another hub."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from enginewright_api.errors import DeterministicError, EnginewrightError, TransientError
from enginewright_api.source import HuggingFaceSource
from enginewright_builder.places import Places
from enginewright_builder.secrecy import mounted, without
from enginewright_builder.sources.address import check_address

_COMMIT = re.compile("[0-9a-f]{40}")
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500

Kind = Literal["model", "dataset"]
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class HubAccess:
    """One repository at one commit; `where` is the field that names it."""

    source: HuggingFaceSource
    places: Places
    kind: Kind
    where: str

    def check_revision(self) -> None:
        """Raises DeterministicError InvalidRevision for anything but a full commit hash."""
        if not _COMMIT.fullmatch(self.source.revision):
            raise DeterministicError(
                "InvalidRevision",
                f"{self.where}.revision: {self.source.revision!r} is not a full commit hash; branches and tags can"
                " move",
            )

    def names(self) -> list[str]:
        """Files of the repository. Raises DeterministicError (not found, access denied) or TransientError."""

        def listed() -> list[str]:
            found: list[str] = self._api().list_repo_files(
                self.source.repository, revision=self.source.revision, repo_type=self.kind
            )
            return found

        return sorted(self._asked(listed))

    def download(self, patterns: Sequence[str], into: Path) -> None:
        """The files that match, below `into`; raises as `names`."""

        def downloaded() -> None:
            self._api().snapshot_download(
                self.source.repository,
                repo_type=self.kind,
                revision=self.source.revision,
                local_dir=into,
                cache_dir=self.places.scratch / "hub",
                allow_patterns=list(patterns),
                max_workers=4,
            )

        self._asked(downloaded)
        for path in sorted(into.glob(".cache"), reverse=True):
            shutil.rmtree(path)

    def _api(self) -> Any:
        import huggingface_hub

        return huggingface_hub.HfApi(endpoint=_endpoint(), token=self._token() or False)

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        check_address(_endpoint(), where="HF_ENDPOINT")
        import httpx
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return ask()
        except HfHubHTTPError as error:
            raise self._refused(error) from error
        except HFValidationError as error:
            raise DeterministicError("SourceNotFound", self._said(f"{self.where}.repository: {error}")) from error
        except (LocalEntryNotFoundError, OSError, httpx.TransportError) as error:
            if isinstance(error.__cause__, HfHubHTTPError):  # a file was refused, after the list was given
                raise self._refused(error.__cause__) from error
            message = self._said(f"{_endpoint()}: cannot be reached ({error})")
            raise TransientError("HubUnavailable", message) from error

    def _said(self, text: str) -> str:
        """What others say goes into status and Events, and may hold what we told them."""
        return without(text, mounted(self.places.tokens))[:500]

    def _refused(self, error: Any) -> EnginewrightError:
        """By the status alone: the hub's own words may be anything."""
        status = error.response.status_code if error.response is not None else 0
        what = f"{self.where}: {self.source.repository} at {self.source.revision}"
        if status == _TOO_MANY_REQUESTS:
            return TransientError("HubRateLimited", f"{what}: the hub asks to slow down (429)")
        if status >= _SERVER_ERRORS or status == 0:
            return TransientError("HubUnavailable", f"{what}: the hub answers with status {status}")
        if status in (401, 403):
            return DeterministicError(
                "SourceAccessDenied",
                f"{what}: the hub refuses access ({status}); set tokenSecretRef to a token that may",
            )
        return DeterministicError("SourceNotFound", f"{what}: no such repository or commit on the hub ({status})")

    def _token(self) -> str | None:
        reference = self.source.token_secret_ref
        if reference is None:
            return None
        path = self.places.tokens / reference.name / reference.key
        try:
            return path.read_text().strip()
        except OSError as error:
            raise DeterministicError(
                "SecretNotFound", f"{self.where}.tokenSecretRef: Secret {reference.name} has no key {reference.key}"
            ) from error


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")
