"""A real tritonserver (from the wheel) with the tiny model of `models/`, for the gateway's tests and benchmark."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

MODELS = Path(__file__).parent / "models"
_START_SECONDS = 60.0


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago on 127.0.0.1."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def outward_address() -> str:
    """This machine's own address; no packet is sent. An API server refuses loopback addresses in EndpointSlices."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))
        return str(sock.getsockname()[0])


def missing() -> str:
    """Why tritonserver cannot run here; empty when it can."""
    if not (_wheel() / "bin/tritonserver").exists():
        return "the nvidia-pytriton wheel is not installed"
    return (
        "" if _libpython() is not None else "no libpython for this interpreter (Debian: apt-get install libpython3.11)"
    )


def _wheel() -> Path:
    return Path(sysconfig.get_path("purelib")) / "pytriton/tritonserver"


def _libpython() -> Path | None:
    name = f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0"
    places = (str(sysconfig.get_config_var("LIBDIR") or ""), f"{sys.base_prefix}/lib", "/usr/lib/x86_64-linux-gnu")
    return next((Path(place) for place in places if place and Path(place, name).exists()), None)


class TritonProcess:
    """One server; `http_port` and `grpc_port` stay the same over a restart."""

    def __init__(self, model: str = "words", address: str = "127.0.0.1") -> None:
        self.model = model
        self.address = address
        self.http_port, self.grpc_port, self.metrics_port = free_ports(3)
        self.folder = Path(tempfile.mkdtemp(prefix="gateway-triton-"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> TritonProcess:
        """Start it and wait until the model is ready."""
        backend = self.folder / "backends/python"
        backend.mkdir(parents=True, exist_ok=True)
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        for source in (
            _wheel() / "backends/python/libtriton_python.so",
            _wheel() / "backends/python/triton_python_backend_utils.py",
            _wheel() / f"python_backend_stubs/{version}/triton_python_backend_stub",
        ):
            link = backend / source.name
            if not link.exists():
                link.symlink_to(source)
        libraries = [str(_libpython()), str(_wheel().parent.parent / "nvidia_pytriton.libs")]
        environment = os.environ | {
            "PATH": f"{Path(sys.prefix, 'bin')}:{os.environ.get('PATH', '')}",
            "LD_LIBRARY_PATH": ":".join([*libraries, os.environ.get("LD_LIBRARY_PATH", "")]),
            "OMP_NUM_THREADS": "1",
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(_wheel() / "bin/tritonserver"), "--model-repository", str(MODELS),
                    "--backend-directory", str(self.folder / "backends"),
                    "--cache-directory", str(_wheel() / "caches"),
                    "--model-control-mode", "explicit", "--load-model", self.model,
                    "--http-address", self.address, "--http-port", str(self.http_port),
                    "--grpc-address", self.address, "--grpc-port", str(self.grpc_port),
                    "--metrics-address", "127.0.0.1", "--metrics-port", str(self.metrics_port),
                    # Servers of one machine must not share the stubs' shared memory regions.
                    "--backend-config", f"python,shm-region-prefix-name={self._regions}",
                ],
                env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._wait_ready()
        return self

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            connection = http.client.HTTPConnection(self.address, self.http_port, timeout=2)
            try:
                connection.request("GET", f"/v2/models/{self.model}/ready")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            finally:
                connection.close()
            time.sleep(0.1)
        raise AssertionError(f"tritonserver did not start:\n{(self.folder / 'log').read_text()[-3000:]}")

    def kill_engine_process(self) -> None:
        """kill -9 of the process that runs the model; the server goes on, and answers that it is gone."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if b"triton_python_backend_stub" in command and self._regions.encode() in command:
                    os.kill(int(folder.name), signal.SIGKILL)

    def kill(self) -> None:
        """kill -9 of the server and its stubs, reaped."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            for region in Path("/dev/shm").glob(f"{self._regions}*"):
                region.unlink(missing_ok=True)

    @property
    def _regions(self) -> str:
        """What the names of its stubs' shared memory begin with."""
        return f"gw{self.http_port}-"

    def close(self) -> None:
        """Kill and clean up."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
