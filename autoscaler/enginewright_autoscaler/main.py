"""`enginewright-autoscaler`: the autoscaler as a program of its own, for Kubernetes."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from enginewright_api.errors import EnginewrightError
from enginewright_api.log_level import LogLevel
from enginewright_api.logs import log_as_json, tell_settings
from enginewright_autoscaler.service import run as run_until_cancelled
from enginewright_autoscaler.settings import AutoscalerSettings

log = logging.getLogger("enginewright.autoscaler")
cli = typer.Typer(no_args_is_help=True, add_completion=False, help="Replicas that keep the models' objectives.")
_DEFAULTS = {name: field.default for name, field in AutoscalerSettings.model_fields.items()}


@cli.callback()
def autoscaler() -> None:
    """Replicas that keep the models' objectives."""


@cli.command()
def run(  # noqa: PLR0917 - one option a parameter is typer's form
    gateway_url: Annotated[
        list[str] | None, typer.Option(envvar="GATEWAY_URL", help="Base URL of a gateway; one for each.")
    ] = None,
    gateway_service: Annotated[
        str | None,
        typer.Option(envvar="GATEWAY_SERVICE", help="namespace/name of the gateways' Service, to discover them."),
    ] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Default: the pod's service account, else KUBECONFIG.")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="Only models of this namespace.")] = None,
    interval_seconds: Annotated[float, typer.Option(help="Time between rounds.")] = _DEFAULTS["interval_seconds"],
    scale_down_window_seconds: Annotated[
        float, typer.Option(help="Replicas fall only to the largest need of this long.")
    ] = _DEFAULTS["scale_down_window_seconds"],
    metrics_host: Annotated[str, typer.Option(help="Address of /metrics and /healthz.")] = "0.0.0.0",  # noqa: S104 - in a pod
    metrics_port: Annotated[
        int | None, typer.Option(envvar="METRICS_PORT", help="Their port; none serves neither.")
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(envvar="ENGINEWRIGHT_LOG_LEVEL", case_sensitive=False)] = LogLevel.INFO,
) -> None:
    """Scale the models of a Kubernetes cluster until SIGTERM."""
    from enginewright_cluster.kubernetes import KubernetesCluster

    try:
        settings = AutoscalerSettings(
            gateway_urls=tuple(gateway_url or ()), gateway_service=gateway_service, namespace=namespace,
            interval_seconds=interval_seconds, scale_down_window_seconds=scale_down_window_seconds,
            metrics_host=metrics_host, metrics_port=metrics_port,
        )  # fmt: skip
    except ValidationError as error:
        for problem in error.errors(include_input=False):
            where = "".join(f"{part}: " for part in problem["loc"])
            sys.stderr.write(f"{where}{problem['msg']}\n")
        raise typer.Exit(2) from error

    async def scaling() -> None:
        cluster = await KubernetesCluster.auto(kubeconfig)
        try:
            work = asyncio.ensure_future(run_until_cancelled(cluster, settings))
            for each in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(each, work.cancel)
            await asyncio.wait([work])
            if not work.cancelled():
                work.result()
        finally:
            await cluster.close()

    log_as_json(log_level.number)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    tell_settings(log, settings.model_dump(mode="json"))
    try:
        asyncio.run(scaling())
    except EnginewrightError as error:
        log.error("stopped", extra={"reason": error.reason, "error": error.message})
        raise typer.Exit(error.exit_code) from error


def main() -> None:
    """Entry point of the console script."""
    cli()
