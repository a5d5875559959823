"""A repository on a Hugging Face hub, at a commit. HF_ENDPOINT names another hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from enginewright_api.errors import DeterministicError, EnginewrightError, TransientError
from enginewright_api.identity import digest_of
from enginewright_api.source import HuggingFaceSource
from enginewright_builder.places import Places
from enginewright_builder.sources.address import check_address
from enginewright_builder.sources.checkpoint import check_source_names

_COMMIT = re.compile("[0-9a-f]{40}")
_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.gguf"]
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500


@dataclass(frozen=True, slots=True)
class HubOrigin:
    """Repository and commit."""

    source: HuggingFaceSource
    places: Places

    def key(self) -> str:
        """A commit does not change. The token is no part of it."""
        if not _COMMIT.fullmatch(self.source.revision):
            raise DeterministicError(
                "InvalidRevision",
                f"source.huggingFace.revision: {self.source.revision!r} is not a full commit hash;"
                " branches and tags can move",
            )
        return digest_of({"hub": [self.source.repository, self.source.revision]})

    def fetch(self, into: Path) -> None:
        """Raises DeterministicError (not found, access denied) or TransientError (rate limited, unavailable)."""
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        check_address(endpoint, where="HF_ENDPOINT")
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        token = self._token()
        try:
            api = huggingface_hub.HfApi(endpoint=endpoint, token=token or False)
            names = api.list_repo_files(self.source.repository, revision=self.source.revision)
            check_source_names(names, where=self.source.repository)
            api.snapshot_download(
                self.source.repository,
                revision=self.source.revision,
                local_dir=into,
                cache_dir=self.places.scratch / "hub",
                allow_patterns=_PATTERNS,
                ignore_patterns=_unused(names),
                max_workers=4,
            )
        except HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            raise self._refused(status) from error
        except (LocalEntryNotFoundError, OSError) as error:
            raise TransientError("HubUnavailable", f"{endpoint}: cannot be reached ({error})"[:500]) from error
        for path in sorted(into.glob(".cache"), reverse=True):
            _remove_folder(path)

    def _refused(self, status: int) -> EnginewrightError:
        what = f"source.huggingFace: {self.source.repository} at {self.source.revision}"
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
                "SecretNotFound",
                f"source.huggingFace.tokenSecretRef: Secret {reference.name} has no key {reference.key}",
            ) from error


def _unused(names: list[str]) -> list[str]:
    """GGUF files beside safetensors hold the same weights again."""
    return ["*.gguf"] if any(name.endswith(".safetensors") for name in names) else []


def _remove_folder(path: Path) -> None:
    import shutil

    shutil.rmtree(path)
