"""The operator's settings of local mode."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from enginewright_api.identity import digest_of, sha256_hex
from enginewright_api.recipe import Toolchain
from enginewright_builder.toolchain.environments import LOCKS
from enginewright_cli.local.components import GRPC_PORT, HTTP_PORT
from enginewright_cli.state import StateDirectory
from enginewright_operator.core.settings import BuildLimits, OperatorSettings, StoreAccess

TOOLCHAIN = ("enginewright", "torch", "transformers", "openvino", "onnxruntime", "onnx", "nncf", "numpy", "tokenizers")
"""Distributions that an engine's bytes depend on."""


def local_toolchain() -> Toolchain:
    """This environment, named by the versions of what compiles."""
    versions = {name: _version(name) for name in TOOLCHAIN}
    locks = {file.name: sha256_hex(file.read_bytes()) for file in sorted(LOCKS.glob("*.lock"))}
    return Toolchain(image="local", digest="sha256:" + digest_of({"versions": versions, "locks": locks}))


def operator_settings(
    state: StateDirectory,
    *,
    http_port: int = HTTP_PORT,
    grpc_port: int = GRPC_PORT,
    drain_seconds: float = 2.0,
) -> OperatorSettings:
    """Everything on this machine: processes instead of images, a folder as store."""
    return OperatorSettings(
        toolchain=local_toolchain(),
        serving_image="local",
        store=StoreAccess(uri=state.store_uri, host_path=True),
        pod_address="127.0.0.1",
        drain_seconds=drain_seconds,
        gateway_url=f"http://127.0.0.1:{http_port}/v1",
        gateway_grpc=f"127.0.0.1:{grpc_port}",
        gateways=(f"http://127.0.0.1:{http_port}",),
        builds=BuildLimits(most_at_once=1),  # each measures how fast its engine is
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
