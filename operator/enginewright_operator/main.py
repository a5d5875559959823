"""`enginewright-operator run`: the operator of a Kubernetes cluster. Local mode composes the same parts by itself."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import socket
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from enginewright_api.errors import EnginewrightError
from enginewright_api.log_level import LogLevel
from enginewright_api.logs import log_as_json, tell_settings
from enginewright_api.recipe import Toolchain
from enginewright_cluster.kubernetes import KubernetesCluster
from enginewright_cluster.port import LEASE, Cluster, Ref
from enginewright_cluster.rate_limit import RateLimit
from enginewright_store import open_store
from enginewright_store.store import Credentials

from .core.settings import BuildLimits, OperatorSettings, StoreAccess
from .shell.leadership import Leadership
from .shell.observability import Observability
from .shell.operator import Operator
from .shell.store_lookup import ArtifactStoreLookup

log = logging.getLogger("enginewright.operator")
app = typer.Typer(help="Operator of Enginewright's resources.", add_completion=False, no_args_is_help=True)

LEASE_NAME = "enginewright-operator"


@dataclass(frozen=True, slots=True)
class Process:
    """Settings of the process itself."""

    kubeconfig: Path | None
    context: str | None
    namespace: str | None
    workers: int
    address: str
    port: int
    lease_namespace: str
    """Empty: no leader election."""
    api_qps: float
    """0: as many requests as it takes."""
    api_burst: int
    log_level: LogLevel


@app.callback()
def root() -> None:
    """Operator of Enginewright's resources."""


def configured(
    *,
    builder_image: Annotated[
        str,
        typer.Option(envvar="ENGINEWRIGHT_BUILDER_IMAGE", help="Builder image by digest, name@sha256:..."),
    ],
    serving_image: Annotated[
        str, typer.Option(envvar="ENGINEWRIGHT_SERVING_IMAGE", help="Serving image, best by digest.")
    ],
    store: Annotated[str, typer.Option(envvar="ENGINEWRIGHT_STORE", help="Artifact store: s3://... or file://...")],
    toolchain_digest: Annotated[
        str,
        typer.Option(
            envvar="ENGINEWRIGHT_TOOLCHAIN_DIGEST", help="Part of every build key; from the image by default."
        ),
    ] = "",
    store_credentials_secret: Annotated[
        str,
        typer.Option(
            envvar="ENGINEWRIGHT_STORE_CREDENTIALS_SECRET",
            help="Secret in each model's namespace; key `credentials` is an AWS credentials file.",
        ),
    ] = "",
    store_endpoint: Annotated[
        str, typer.Option(envvar="ENGINEWRIGHT_STORE_ENDPOINT", help="S3 endpoint that is not Amazon's.")
    ] = "",
    store_region: Annotated[str, typer.Option(envvar="ENGINEWRIGHT_STORE_REGION", help="S3 region.")] = "",
    store_claim: Annotated[
        str,
        typer.Option(
            envvar="ENGINEWRIGHT_STORE_CLAIM",
            help="PersistentVolumeClaim that a file:// store is on, in each namespace.",
        ),
    ] = "",
    store_host_path: Annotated[
        bool,
        typer.Option(envvar="ENGINEWRIGHT_STORE_HOST_PATH", help="A file:// store is that folder on every node."),
    ] = False,
    signing_key_secret: Annotated[
        str, typer.Option(envvar="ENGINEWRIGHT_SIGNING_KEY_SECRET", help="Secret with key `private.pem`.")
    ] = "enginewright-signing",  # noqa: S107 - the name of a Secret
    public_key_config_map: Annotated[
        str, typer.Option(envvar="ENGINEWRIGHT_PUBLIC_KEY_CONFIG_MAP", help="ConfigMap with key `public.pem`.")
    ] = "enginewright-trust",
    rank_key_secret: Annotated[
        str,
        typer.Option(
            envvar="ENGINEWRIGHT_RANK_KEY_SECRET",
            help="Secret with keys `ssh-privatekey` and `ssh-publickey`, for models whose replicas span nodes.",
        ),
    ] = "enginewright-ranks",  # noqa: S107 - the name of a Secret
    image_pull_secret: Annotated[
        list[str] | None, typer.Option(envvar="ENGINEWRIGHT_IMAGE_PULL_SECRETS", help="May be given more than once.")
    ] = None,
    image_pull_policy: Annotated[
        str, typer.Option(envvar="ENGINEWRIGHT_IMAGE_PULL_POLICY", help="Always, IfNotPresent or Never.")
    ] = "IfNotPresent",
    gateway_url: Annotated[
        str, typer.Option(envvar="ENGINEWRIGHT_GATEWAY_URL", help="OpenAI base URL shown in status.endpoints.")
    ] = "",
    gateway: Annotated[
        list[str] | None,
        typer.Option(
            envvar="ENGINEWRIGHT_GATEWAYS",
            help="Gateways that give canaries their share: base URL, or namespace/name of their Service. Without any, "
            "strategy Canary is refused.",
        ),
    ] = None,
    build_attempts: Annotated[int, typer.Option(min=1, max=20, envvar="ENGINEWRIGHT_BUILD_ATTEMPTS")] = 4,
    build_deadline_seconds: Annotated[
        int, typer.Option(min=60, envvar="ENGINEWRIGHT_BUILD_DEADLINE_SECONDS", help="Longest time of one attempt.")
    ] = 3600,
    build_cpu: Annotated[str, typer.Option(envvar="ENGINEWRIGHT_BUILD_CPU")] = "2",
    build_memory_gib: Annotated[float, typer.Option(min=0.5, envvar="ENGINEWRIGHT_BUILD_MEMORY_GIB")] = 8.0,
    build_memory_most_gib: Annotated[
        float,
        typer.Option(min=0.5, envvar="ENGINEWRIGHT_BUILD_MEMORY_MOST_GIB", help="After running out of memory."),
    ] = 64.0,
    max_builds: Annotated[
        int | None, typer.Option(min=1, envvar="ENGINEWRIGHT_MAX_BUILDS", help="Builds at the same time; any number.")
    ] = None,
    max_builds_per_namespace: Annotated[
        int | None, typer.Option(min=1, envvar="ENGINEWRIGHT_MAX_BUILDS_PER_NAMESPACE", help="Likewise in a namespace.")
    ] = None,
    drain_seconds: Annotated[
        float,
        typer.Option(min=0, envvar="ENGINEWRIGHT_DRAIN_SECONDS", help="The former engine lives on for this long."),
    ] = 10.0,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="In a pod its service account, else $KUBECONFIG, by default.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
    namespace: Annotated[
        str | None, typer.Option(envvar="ENGINEWRIGHT_NAMESPACE", help="Only this namespace; all by default.")
    ] = None,
    lease_namespace: Annotated[
        str,
        typer.Option(
            envvar="ENGINEWRIGHT_LEASE_NAMESPACE",
            help="Namespace of the Lease by which one replica is active; without it there is no election.",
        ),
    ] = "",
    workers: Annotated[int, typer.Option(min=1, max=256, envvar="ENGINEWRIGHT_WORKERS")] = 8,
    address: Annotated[str, typer.Option(envvar="ENGINEWRIGHT_ADDRESS", help="Of the port below.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, envvar="ENGINEWRIGHT_PORT", help="/metrics, /healthz and /readyz.")
    ] = 8080,
    api_qps: Annotated[
        float,
        typer.Option(
            min=0, envvar="ENGINEWRIGHT_API_QPS", help="Most requests a second to the API server; 0: any number."
        ),
    ] = 200.0,
    api_burst: Annotated[
        int, typer.Option(min=1, envvar="ENGINEWRIGHT_API_BURST", help="Requests at once beyond that.")
    ] = 400,
    log_level: Annotated[LogLevel, typer.Option(envvar="ENGINEWRIGHT_LOG_LEVEL", case_sensitive=False)] = LogLevel.INFO,
) -> tuple[OperatorSettings, Process]:
    """Reconcile until SIGTERM."""
    settings = OperatorSettings(
        toolchain=Toolchain(image=builder_image, digest=toolchain_digest or _digest_of(builder_image)),
        serving_image=serving_image,
        store=StoreAccess(
            uri=store.rstrip("/"),
            credentials_secret=store_credentials_secret,
            endpoint_url=store_endpoint,
            region=store_region,
            volume_claim=store_claim,
            host_path=store_host_path,
        ),
        signing_key_secret=signing_key_secret,
        public_key_config_map=public_key_config_map,
        rank_key_secret=rank_key_secret,
        image_pull_secrets=tuple(image_pull_secret or ()),
        image_pull_policy=image_pull_policy,
        drain_seconds=drain_seconds,
        gateway_url=gateway_url,
        gateways=tuple(gateway or ()),
        builds=BuildLimits(
            attempts=build_attempts,
            deadline_seconds=build_deadline_seconds,
            cpu=build_cpu,
            memory_gib=build_memory_gib,
            memory_most_gib=max(build_memory_gib, build_memory_most_gib),
            most_at_once=max_builds,
            most_per_namespace=max_builds_per_namespace,
        ),
    )
    process = Process(
        kubeconfig, context, namespace, workers, address, port, lease_namespace, api_qps, api_burst, log_level
    )
    return settings, process


@app.command("run")
@functools.wraps(configured)
def run_command(**options: Any) -> None:
    """Work by what the options say."""
    log_as_json(options["log_level"])
    try:
        settings, process = configured(**options)
        _print_once(settings, process)
        asyncio.run(_main(settings, process))
    except EnginewrightError as error:
        log.error("stopped", extra={"reason": error.reason, "error": error.message})
        raise typer.Exit(error.exit_code) from error


def _digest_of(image: str) -> str:
    """Digest in an image reference; an image that can change under its name would make build keys lie."""
    _, separator, digest = image.partition("@")
    if not separator:
        raise typer.BadParameter(
            f"{image}: name the builder image by digest (name@sha256:...) or give --toolchain-digest"
        )
    return digest


def _print_once(settings: OperatorSettings, process: Process) -> None:
    """Settings hold names of Secrets, never their content."""
    shown = {**asdict(process), **asdict(settings), "toolchain": settings.toolchain.wire()}
    tell_settings(log, shown)


async def _main(settings: OperatorSettings, process: Process) -> None:
    seen = Observability()
    limit = RateLimit(process.api_qps, process.api_burst, seen.metrics.throttled) if process.api_qps else None
    cluster = await KubernetesCluster.auto(
        process.kubeconfig, process.context, observe=seen.metrics.called, limit=limit
    )
    try:
        reached = Credentials(endpoint_url=settings.store.endpoint_url, region=settings.store.region)
        store = await asyncio.to_thread(open_store, settings.store.uri, credentials=reached)
        operator = Operator(
            cluster,
            ArtifactStoreLookup(store),
            settings,
            namespace=process.namespace,
            workers=process.workers,
            metrics=seen.metrics,
        )
        await _until_told(_serve(operator, seen, cluster, process))
    finally:
        await cluster.close()


async def _serve(operator: Operator, seen: Observability, cluster: Cluster, process: Process) -> None:
    """Health from the start; work once this replica leads."""
    async with asyncio.TaskGroup() as group:
        group.create_task(seen.serve(process.address, process.port), name="health")
        group.create_task(seen.metrics.measure_lag(), name="lag")
        if process.lease_namespace:
            lease = Ref(LEASE, LEASE_NAME, process.lease_namespace)
            identity = f"{socket.gethostname()}-{uuid4().hex[:8]}"
            group.create_task(Leadership(cluster, lease, identity).run(operator.run), name="leadership")
        else:
            group.create_task(operator.run(), name="operator")


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    """Run until SIGTERM or SIGINT, or until the work fails: then its first error comes out."""
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        log.info("told to stop")
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def main() -> None:
    """Console script."""
    app()
