"""Command line and environment of the tritonserver in the nvidia-pytriton wheel.

Nothing is written into site-packages: a private backend folder links to the wheel's files. The server's Python
backend runs models in the interpreter of this environment, for which it must find libpython.
"""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from enginewright_api.errors import DeterministicError
from enginewright_serving.activity import ACTIVITY_VARIABLE
from enginewright_serving.threads import THREADS_VARIABLE

_VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the server listens."""

    address: str
    http_port: int
    grpc_port: int
    metrics_port: int


def command(
    repository: Path, model: str, listen: Listen, *, backends: Path, memory_prefix: str, exit_timeout_seconds: int
) -> list[str]:
    """Argument list of the server."""
    server = _server_folder()
    return [
        str(server / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        f"--cache-directory={server / 'caches'}",
        "--model-control-mode=explicit",
        # config.pbtxt is complete; asking the model's code as well would start its process twice.
        "--disable-auto-complete-config",
        f"--load-model={model}",
        f"--http-address={listen.address}",
        f"--http-port={listen.http_port}",
        f"--grpc-address={listen.address}",
        f"--grpc-port={listen.grpc_port}",
        f"--metrics-address={listen.address}",
        f"--metrics-port={listen.metrics_port}",
        "--metrics-config=summary_latencies=true",
        f"--backend-config=python,shm-region-prefix-name={memory_prefix}",
        f"--exit-timeout-secs={exit_timeout_seconds}",
    ]


def environment(base: Mapping[str, str], *, threads: int, activity_file: Path) -> dict[str, str]:
    """Environment of the server and, through it, of the model's process."""
    libraries = [libpython_folder(), str(_site_packages() / "nvidia_pytriton.libs"), base.get("LD_LIBRARY_PATH", "")]
    return {
        **base,
        # The Python backend starts the first python3 on PATH's environment.
        "PATH": f"{Path(sys.prefix, 'bin')}:{base.get('PATH', '')}",
        "LD_LIBRARY_PATH": ":".join(folder for folder in libraries if folder),
        THREADS_VARIABLE: str(threads),
        ACTIVITY_VARIABLE: str(activity_file),
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }


def link_backends(folder: Path) -> Path:
    """A backend folder with the Python backend and this Python's stub. Returns the folder."""
    server = _server_folder()
    python = folder / "python"
    python.mkdir(parents=True)
    files = (
        server / "backends/python/libtriton_python.so",
        server / "backends/python/triton_python_backend_utils.py",
        server / f"python_backend_stubs/{_VERSION}/triton_python_backend_stub",
    )
    for file in files:
        if not file.exists():
            raise DeterministicError(
                "ServerMissing", f"{file}: not in the nvidia-pytriton package; install version 0.7.0"
            )
        (python / file.name).symlink_to(file)
    return folder


def libpython_folder(
    folders: Iterable[str | None] | None = None, find: Callable[[str], str | None] = ctypes.util.find_library
) -> str:
    """Folder to add to LD_LIBRARY_PATH; empty when the loader finds libpython by itself."""
    library = f"libpython{_VERSION}.so.1.0"
    candidates = (sysconfig.get_config_var("LIBDIR"), str(Path(sys.base_prefix, "lib"))) if folders is None else folders
    for folder in candidates:
        if folder and Path(folder, library).exists():
            return folder
    if find(f"python{_VERSION}"):
        return ""
    raise DeterministicError(
        "LibpythonMissing",
        f"{library}: not found, and the server's Python backend needs it; apt-get install libpython{_VERSION},"
        " or use a Python built with --enable-shared",
    )


def check_numpy(version: str | None = None) -> None:
    """The server's Python backend silently corrupts tensors under numpy 2 (empty outputs with status OK)."""
    found = importlib.metadata.version("numpy") if version is None else version
    if int(found.partition(".")[0]) >= 2:
        raise DeterministicError(
            "NumpyTooNew", f"numpy {found}: this server corrupts tensors with it; install 'numpy<2'"
        )


def _server_folder() -> Path:
    folder = _site_packages() / "pytriton" / "tritonserver"
    if not (folder / "bin" / "tritonserver").exists():
        raise DeterministicError(
            "ServerMissing", f"{folder}: no tritonserver; install enginewright[serving] (nvidia-pytriton 0.7.0)"
        )
    return folder


def _site_packages() -> Path:
    return Path(sysconfig.get_path("purelib"))
