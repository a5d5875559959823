"""One control plane a state folder: its lock, starting it in the background, stopping it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_cli.local.control_plane import Options
from enginewright_cli.local.doors import check_ports
from enginewright_cli.state import StateDirectory

START_SECONDS = 120.0
"""A bound for a machine that does nothing else well either; a control plane that ends is noticed at once."""
STOP_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Running:
    """A control plane that is up."""

    pid: int
    http_port: int
    grpc_port: int
    sentence: str


@contextlib.contextmanager
def holding_lock(state: StateDirectory, options: Options) -> Iterator[None]:
    """Hold the state folder's lock for the life of the control plane; DeterministicError when somebody else does."""
    state.prepare()
    with state.lock.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = _read(state)
            raise DeterministicError(
                "AlreadyRunning",
                f"a control plane is running already (process {found.get('pid', '?')}, state in {state.root});"
                f" stop it with: {state.down_command}",
            ) from None
        lock.seek(0)
        lock.truncate()
        json.dump({"pid": os.getpid(), "httpPort": options.http_port, "grpcPort": options.grpc_port}, lock)
        lock.flush()
        yield


def running_pid(state: StateDirectory) -> int | None:
    """Process id of the running control plane; None when the lock is free."""
    try:
        with state.lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return int(_read(state).get("pid", 0)) or None
    return None


def running(state: StateDirectory) -> Running | None:
    """The control plane that is up, if any."""
    pid = running_pid(state)
    if pid is None:
        return None
    found = _read(state)
    return Running(pid, found["httpPort"], found["grpcPort"], f"control plane is up already (process {pid})")


def start(state: StateDirectory, options: Options) -> Running:
    """Start `enginewright up` in the background and wait until its gateway answers."""
    already = running(state)
    if already is not None:
        return already
    # Before the process exists: whoever has the port may answer like a gateway, being one of another state folder.
    check_ports(http_port=options.http_port, grpc_port=options.grpc_port)
    state.prepare()
    command = [
        sys.executable, "-m", "enginewright_cli", "up", "--state-dir", str(state.root),
        "--http-port", str(options.http_port), "--grpc-port", str(options.grpc_port),
        "--scale-down-seconds", str(options.scale_down_seconds),
    ]  # fmt: skip
    with state.log.open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise TransientError("StartFailed", f"the control plane did not start: {_last_line(state)}")
        found = running(state)
        if found is not None and found.pid == process.pid and answers(found.http_port):
            return Running(found.pid, found.http_port, found.grpc_port, f"control plane is up (process {process.pid})")
        time.sleep(0.05)
    raise TransientError("StartFailed", f"the gateway does not answer after {START_SECONDS:g} s; see {state.log}")


def stop(state: StateDirectory) -> str:
    """SIGTERM, wait, and say what happened."""
    pid = running_pid(state)
    if pid is None:
        return "the control plane is not running"
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + STOP_SECONDS
    while time.monotonic() < end:
        if running_pid(state) is None:
            return "control plane stopped"
        time.sleep(0.05)
    raise TransientError("StopFailed", f"process {pid} is still stopping after {STOP_SECONDS:g} s; see {state.log}")


def answers(http_port: int) -> bool:
    """Whether a gateway on this port says it is healthy."""
    import httpx

    try:
        return httpx.get(f"http://127.0.0.1:{http_port}/healthz", timeout=1.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _read(state: StateDirectory) -> dict[str, int]:
    try:
        found: dict[str, int] = json.loads(state.lock.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _last_line(state: StateDirectory) -> str:
    lines = state.log.read_text(errors="replace").splitlines()
    return lines[-1].removeprefix("enginewright: ") if lines else f"see {state.log}"
