"""Where weights and data come from."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from enginewright_api.model_base import ApiModel
from enginewright_api.rules import exactly_one_of, rules

Name = Annotated[str, Field(min_length=1, max_length=253)]
ShortText = Annotated[str, Field(min_length=1, max_length=512)]
RelativePath = Annotated[str, Field(max_length=512)]
Uri = Annotated[str, Field(min_length=1, max_length=1024)]

_URI = r"^(s3|gs|az|file)://[^\\s]+$"
_NO_PARENT = "!self.path.matches('^/|[.][.]')"


class SecretReference(ApiModel):
    """A Secret in the same namespace, mounted as files in the one container that needs it."""

    name: Name = Field(description="Name of the Secret.")


class SecretKeyReference(ApiModel):
    """One key of a Secret in the same namespace."""

    name: Name = Field(description="Name of the Secret.")
    key: Name = Field(description="Key inside the Secret.")


class HuggingFaceSource(ApiModel):
    """A repository on a Hugging Face hub, pinned to a commit."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.revision.matches('^[0-9a-f]{40}$')",
                "revision: give the full 40-character commit hash; a branch or tag can move",
            ),
        )
    )
    repository: ShortText = Field(description="Repository as organisation/name.", pattern=r"^[\w.-]+/[\w.-]+$")
    revision: ShortText = Field(description="Commit hash, 40 hexadecimal characters.")
    token_secret_ref: SecretKeyReference | None = Field(
        default=None, description="Access token for gated repositories."
    )


class ObjectStoreSource(ApiModel):
    """A folder in an object store."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (f"self.uri.matches('{_URI}')", "uri: must start with s3://, gs://, az:// or file:// and hold no spaces"),
            (
                "!self.uri.matches('://(169[.]254[.]|metadata|localhost|[[]fe80)')",
                "uri: link-local and metadata addresses are refused",
            ),
        )
    )
    uri: Uri = Field(description="Folder such as s3://bucket/path, taken as immutable.")
    secret_ref: SecretReference | None = Field(default=None, description="Credentials for the store.")


class OciSource(ApiModel):
    """An OCI artifact pinned by digest."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.reference.matches('^[^@ ]+@sha256:[0-9a-f]{64}$')",
                "reference: pin it by digest, registry/repo@sha256:...",
            ),
        )
    )
    reference: Uri = Field(description="registry/repository@sha256:digest.")
    secret_ref: SecretReference | None = Field(default=None, description="Registry credentials.")


class PersistentVolumeClaimSource(ApiModel):
    """A folder on a PersistentVolumeClaim in the same namespace."""

    model_config = ConfigDict(
        json_schema_extra=rules((_NO_PARENT, "path: must be relative to the volume and must not contain '..'"))
    )
    claim_name: Name = Field(description="Name of the PersistentVolumeClaim.")
    path: RelativePath = Field(default="", description="Folder inside the volume, taken as immutable.")


class PackageSource(ApiModel):
    """Weights shipped inside an installed Python package."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (_NO_PARENT, "path: must be relative to the package and must not contain '..'"),
            ("!has(self.sha256) || self.sha256.matches('^[0-9a-f]{64}$')", "sha256: 64 hexadecimal characters"),
        )
    )
    name: Name = Field(description="Distribution name, as pip lists it.")
    version: Name = Field(description="Exact version.")
    sha256: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="Digest of the files under `path`, checked when given."
    )
    path: RelativePath = Field(default="", description="Folder inside the installed package.")


class Source(ApiModel):
    """Where the trained weights are. Exactly one kind."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            exactly_one_of("source", "huggingFace", "objectStore", "oci", "persistentVolumeClaim", "package")
        )
    )
    hugging_face: HuggingFaceSource | None = Field(default=None, description="A Hugging Face repository at a commit.")
    object_store: ObjectStoreSource | None = Field(default=None, description="A folder in an object store.")
    oci: OciSource | None = Field(default=None, description="An OCI artifact by digest.")
    persistent_volume_claim: PersistentVolumeClaimSource | None = Field(
        default=None, description="A folder on a volume."
    )
    package: PackageSource | None = Field(default=None, description="Weights inside an installed Python package.")


class HuggingFaceDataset(HuggingFaceSource):
    """A data set in the hub's layout, pinned to a commit."""

    split: Name = Field(default="train", description="Split to read.")


class ConfigMapDataset(ApiModel):
    """Rows in a ConfigMap: JSON lines, CSV or plain text, one row a line."""

    name: Name = Field(description="Name of the ConfigMap in the same namespace.")
    key: Name = Field(default="data.jsonl", description="Key; its ending (.jsonl, .csv, .txt) says the format.")


class BuiltinDataset(ApiModel):
    """A text set that comes with the builder."""

    name: Name = Field(description="Name of the set; `news-en` is the default for English text.")


class Columns(ApiModel):
    """Which column of the data holds what."""

    text: Name = Field(default="text", description="Column with the input text, or with lists of its words.")
    text_pair: Name | None = Field(default=None, description="Column with the second text of a pair.")
    label: Name | None = Field(
        default=None,
        description="Column with the class or answer; with lists, one a word.",
    )
    score: Name | None = Field(default=None, description="Column with a human score of the pair.")


class Dataset(ApiModel):
    """Rows of text, with labels where the metric needs them. Exactly one kind."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            exactly_one_of("dataset", "huggingFace", "objectStore", "persistentVolumeClaim", "configMap", "builtin")
        )
    )
    hugging_face: HuggingFaceDataset | None = Field(default=None, description="A data set repository at a commit.")
    object_store: ObjectStoreSource | None = Field(default=None, description="A file or folder in an object store.")
    persistent_volume_claim: PersistentVolumeClaimSource | None = Field(default=None, description="A file on a volume.")
    config_map: ConfigMapDataset | None = Field(default=None, description="Rows in a ConfigMap.")
    builtin: BuiltinDataset | None = Field(default=None, description="A set that comes with the builder.")
    columns: Columns = Field(default_factory=Columns, description="Which column holds what.")
