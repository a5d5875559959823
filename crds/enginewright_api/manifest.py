"""The artifact in the store: layout, manifest, evidence files.

<store>/artifacts/<key>/manifest.json      written last, conditionally; its sha256 is the artifact digest
<store>/artifacts/<key>/<digest>/model.sig OpenSSF Model Signing bundle over that manifest and its files
<store>/artifacts/<key>/files/<sha256>     content of what the manifest lists: racing builders never mix files
<store>/evidence/<key>/<request digest>.json  evidence for requests other than the manifest's own
<store>/stages/<stage key>/...             the builder's stage cache

The paths that a manifest lists are those of the folder that admission lays out (see `engine_description`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from enginewright_api.evidence import BenchmarkEvidence, QualityEvidence
from enginewright_api.model_base import ApiModel
from enginewright_api.recipe import AcceleratorFacts, Recipe, Toolchain

MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "model.sig"

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _safe_path(path: str) -> str:
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"unsafe path {path!r}: must be relative, without '..' or empty parts")
    return path


class ArtifactFile(ApiModel):
    """One file of an artifact."""

    path: Annotated[str, Field(max_length=512), AfterValidator(_safe_path)] = Field(
        description="Where the file lies in the folder that is served."
    )
    size: int = Field(ge=0, description="Bytes.")
    sha256: Sha256 = Field(description="Content digest.")


class Evidence(ApiModel):
    """Everything measured for one evidence request."""

    request_digest: Sha256 = Field(description="EvidenceRequest.digest it answers.")
    quality: QualityEvidence = Field(description="Quality against the baseline.")
    benchmark: BenchmarkEvidence = Field(description="Speed against the baseline.")


class RuntimeRequirement(ApiModel):
    """What the serving side must have; admission compares and names the differing field."""

    backend: str = Field(description="Engine backend (API name).")
    package: str = Field(description="Distribution whose version must match, such as openvino.")
    version: str = Field(description="Version the engine was built with.")


class Manifest(ApiModel):
    """What an artifact is, by content."""

    schema_version: Literal[1] = Field(default=1, description="Layout version.")
    key: Sha256 = Field(description="Build key.")
    recipe: Recipe = Field(description="What was built.")
    source_digest: Sha256 = Field(description="Digest of the source files as fetched.")
    toolchain: Toolchain = Field(description="With what.")
    accelerator: AcceleratorFacts = Field(description="For what.")
    runtime: RuntimeRequirement = Field(description="What serves it.")
    files: list[ArtifactFile] = Field(description="Sorted by path.")
    evidence: Evidence = Field(description="As measured before publishing.")
    provenance: dict[str, object] = Field(default_factory=dict, description="in-toto statement (SLSA provenance v1).")
    created: str = Field(description="RFC 3339.")

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def artifact_prefix(key: str) -> str:
    """Folder of the artifact below the store's root."""
    return f"artifacts/{key}"


def evidence_path(key: str, request_digest: str) -> str:
    """Evidence measured for a request other than the manifest's own."""
    return f"evidence/{key}/{request_digest}.json"
