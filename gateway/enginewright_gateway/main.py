"""`enginewright-gateway`: the gateway as a program of its own, for Kubernetes."""

from __future__ import annotations

import hashlib
import logging
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from pydantic import ValidationError

from enginewright_api.errors import EnginewrightError
from enginewright_api.log_level import LogLevel
from enginewright_api.logs import tell_settings

from .app import serve
from .exchange import log_to_stdout
from .keys import KeyFile
from .settings import GatewaySettings

log = logging.getLogger("enginewright.gateway")
cli = typer.Typer(no_args_is_help=True, add_completion=False, help="OpenAI and KServe v2 in front of the models.")
_DEFAULTS = {name: field.default for name, field in GatewaySettings.model_fields.items()}


@cli.command()
def run(  # noqa: PLR0917 - one option a parameter is typer's form
    address: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104 - in a pod
    http_port: Annotated[int, typer.Option(envvar="HTTP_PORT")] = _DEFAULTS["http_port"],
    grpc_port: Annotated[int, typer.Option(envvar="GRPC_PORT")] = _DEFAULTS["grpc_port"],
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Default: the pod's service account, else KUBECONFIG.")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="Serve models of this namespace only.")] = None,
    keys_dir: Annotated[Path | None, typer.Option(help="Folder of API keys (a mounted Secret).")] = None,
    allow_anonymous: Annotated[bool, typer.Option(help="Serve without keys.")] = False,
    max_body_bytes: Annotated[int, typer.Option()] = _DEFAULTS["max_body_bytes"],
    max_header_bytes: Annotated[int, typer.Option()] = _DEFAULTS["max_header_bytes"],
    hold_seconds: Annotated[float, typer.Option(help="Longest wait for a first endpoint.")] = _DEFAULTS["hold_seconds"],
    max_held: Annotated[int, typer.Option(help="Requests that wait so, for each model.")] = _DEFAULTS["max_held"],
    drain_delay_seconds: Annotated[float, typer.Option(help="Between /readyz 503 and the closed port.")] = 5.0,
    drain_seconds: Annotated[float, typer.Option(help="For requests under way.")] = _DEFAULTS["drain_seconds"],
    log_level: Annotated[LogLevel, typer.Option(envvar="ENGINEWRIGHT_LOG_LEVEL", case_sensitive=False)] = LogLevel.INFO,
) -> None:
    """Serve the models of a Kubernetes cluster until SIGTERM."""
    try:
        settings = GatewaySettings(
            address=address, http_port=http_port, grpc_port=grpc_port, namespace=namespace, keys_dir=keys_dir,
            allow_anonymous=allow_anonymous, max_body_bytes=max_body_bytes, max_header_bytes=max_header_bytes,
            hold_seconds=hold_seconds, max_held=max_held, drain_delay_seconds=drain_delay_seconds,
            drain_seconds=drain_seconds,
        )  # fmt: skip
    except ValidationError as error:
        sys.stderr.write(f"{error.errors(include_input=False)[0]['msg']}\n")
        raise typer.Exit(2) from error

    from enginewright_cluster.kubernetes import KubernetesCluster

    async def serving() -> None:
        cluster = await KubernetesCluster.auto(kubeconfig)
        try:
            await serve(cluster, settings)
        finally:
            await cluster.close()

    log_to_stdout(log_level.number)
    tell_settings(log, settings.model_dump(mode="json"))
    try:
        uvloop.run(serving())
    except EnginewrightError as error:
        log.error("stopped", extra={"reason": error.reason, "error": error.message})
        raise typer.Exit(error.exit_code) from error


@cli.command()
def key(
    models: Annotated[list[str], typer.Option("--model", help="Pattern of namespace/name; may come several times.")],
) -> None:
    """Make an API key: the key goes to stdout once, the file for the keys folder after it."""
    secret = f"ew-{secrets.token_urlsafe(32)}"
    file = KeyFile(sha256=hashlib.sha256(secret.encode()).hexdigest(), models=models)
    sys.stdout.write(f"{secret}\n{file.model_dump_json()}\n")


def main() -> None:
    """Entry point of the console script."""
    cli()


if __name__ == "__main__":
    main()
