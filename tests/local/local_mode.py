"""A control plane of local mode, driven the way its users do: by the command line and over the network."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENGINEWRIGHT = Path(sys.executable).parent / "enginewright"
NODE_MARK = "ENGINEWRIGHT_NODE"


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def eventually(what: str, check: Callable[[], Any], *, seconds: float) -> Any:
    """The first true result of `check`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:g} s: {what}")


@dataclass(frozen=True, slots=True)
class LocalMode:
    """One state folder with its own ports."""

    home: Path
    http_port: int
    grpc_port: int

    @property
    def url(self) -> str:
        """Of the gateway."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        """Address of the gateway's gRPC port."""
        return f"127.0.0.1:{self.grpc_port}"

    def run(self, *arguments: str, code: int | None = 0, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """`enginewright …`; asserts the exit code (None: any) and that no traceback was printed."""
        environment = os.environ | {"ENGINEWRIGHT_HOME": str(self.home), "COLUMNS": "200"}
        done = subprocess.run(
            [str(ENGINEWRIGHT), *arguments],
            env=environment, capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        said = f"enginewright {' '.join(arguments)} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr, said
        assert code is None or done.returncode == code, said
        return done

    def up(self) -> str:
        """Start it in the background; what `up` said."""
        ports = ("--http-port", str(self.http_port), "--grpc-port", str(self.grpc_port))
        return self.run("up", "--detach", *ports, "--scale-down-seconds", "5").stdout

    def get(self, what: str) -> Any:
        """One object, or the items of a list."""
        found = json.loads(self.run("get", what, "-o", "json").stdout)
        return found["items"] if found.get("kind") == "List" else found

    def names(self, kind: str) -> list[str]:
        """Names of all objects of a kind in the default namespace."""
        return sorted(item["metadata"]["name"] for item in self.get(kind))

    def processes(self, *words: str) -> list[int]:
        """What the node agent started and whose command line holds all of these words, oldest first."""
        mark = f"{NODE_MARK}={self.home}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes().split(b"\0")
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if mark in environment and command and all(word in command for word in words):
                found.append(int(folder.name))
        return sorted(found)

    def control_plane(self) -> int:
        """Process id of `up`."""
        return int(json.loads((self.home / "up.lock").read_text())["pid"])

    def one(self, *words: str) -> int:
        """The only process of that kind."""
        found: list[int] = eventually(f"one process {words}", lambda: self.processes(*words), seconds=30)
        return found[0]


def kill(pid: int) -> None:
    """SIGKILL, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    eventually(f"process {pid} gone", lambda: not is_alive(pid), seconds=10)


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
