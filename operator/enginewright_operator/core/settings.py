"""What a platform team decides once for the whole operator."""

from __future__ import annotations

from dataclasses import dataclass, field

from enginewright_api.errors import DeterministicError
from enginewright_api.recipe import Toolchain


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """How pods reach the artifact store. A volume is mounted at the folder that a file:// URI names."""

    uri: str
    credentials_secret: str = ""
    """Secret in the model's namespace whose key `credentials` is an AWS shared credentials file."""
    endpoint_url: str = ""
    """S3 endpoint, for stores that are not Amazon's."""
    region: str = ""
    volume_claim: str = ""
    host_path: bool = False
    """The folder of a file:// URI exists on every node (local mode, or one node)."""

    def __post_init__(self) -> None:
        if self.folder is not None and not (self.volume_claim or self.host_path):
            raise DeterministicError(
                "InvalidSettings", f"store {self.uri}: a file:// store needs a volume claim, or a folder on every node"
            )

    @property
    def folder(self) -> str | None:
        """Folder of a file:// URI."""
        return self.uri.removeprefix("file://") if self.uri.startswith("file://") else None


@dataclass(frozen=True, slots=True)
class BuildLimits:
    """What one build may take, and how often it is tried."""

    attempts: int = 4
    deadline_seconds: int = 3600
    retry_seconds: float = 10.0
    """First pause after a transient failure; doubled each time."""
    retry_most_seconds: float = 300.0
    cpu: str = "2"
    memory_gib: float = 8.0
    memory_most_gib: float = 64.0
    """A build that ran out of memory is tried once more with what it needs, up to this."""
    most_at_once: int | None = None
    """Builds that run at the same time; None leaves it to the cluster's scheduler."""
    most_per_namespace: int | None = None

    @property
    def limited(self) -> bool:
        """Whether a build may have to wait for others."""
        return self.most_at_once is not None or self.most_per_namespace is not None


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """Settings of the operator that decide what it renders."""

    toolchain: Toolchain
    """Builder image and the digest that is part of every build key."""
    serving_image: str
    store: StoreAccess
    signing_key_secret: str = "enginewright-signing"  # noqa: S105 - the name of a Secret
    """Secret in the model's namespace; its key `private.pem` signs artifacts."""
    public_key_config_map: str = "enginewright-trust"
    """ConfigMap in the model's namespace; its key `public.pem` is what admission trusts."""
    rank_key_secret: str = "enginewright-ranks"  # noqa: S105 - the name of a Secret
    """Secret in the model's namespace; its keys `ssh-privatekey` and `ssh-publickey` let a leader start the ranks of
    its group on other nodes. Only models that span nodes need it."""
    image_pull_secrets: tuple[str, ...] = ()
    image_pull_policy: str = "IfNotPresent"
    pod_address: str = "0.0.0.0"  # noqa: S104 - a pod has an address of its own; local mode says 127.0.0.1
    drain_seconds: float = 10.0
    """How long the old engine goes on after the Service has left it."""
    gateway_url: str = ""
    """OpenAI base URL shown in status.endpoints; empty when there is no gateway."""
    gateway_grpc: str = ""
    """Address of the gateway's KServe gRPC port, where only the gateway can be reached from outside (local mode):
    status.endpoints then shows the gateway instead of the model's Service."""
    gateways: tuple[str, ...] = ()
    """Where the figures of canaries come from: base URLs of gateways, or `namespace/name` of their Service."""
    cluster_domain: str = "cluster.local"
    builds: BuildLimits = field(default_factory=BuildLimits)
