"""pytest fixture `s3_server`: a real S3 server (versitygw) on 127.0.0.1, built once, started when a test asks for it.

Where it cannot be built the tests are skipped with the reason.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.required import cannot_run

_BUILD = Path(__file__).with_name("build.sh")
_CANNOT = 3


@dataclass(frozen=True)
class S3Server:
    """Address and credentials of the running server; `process` may be stopped and continued by a test."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str
    bucket: str
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """Standard AWS variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server with one empty bucket for the session."""
    build = subprocess.run([str(_BUILD)], capture_output=True, text=True, check=False, timeout=900)
    if build.returncode == _CANNOT:
        cannot_run(build.stderr.strip().splitlines()[-1])
    assert build.returncode == 0, build.stderr
    with tempfile.TemporaryDirectory(prefix="enginewright-s3-") as folder:
        yield from _run(build.stdout.strip(), Path(folder))


def _run(program: str, folder: Path) -> Iterator[S3Server]:
    (folder / "data" / "engines").mkdir(parents=True)
    (folder / "meta").mkdir()
    port = _free_port()
    access, secret = "test" + secrets.token_hex(6), secrets.token_hex(20)
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "--port", f"127.0.0.1:{port}", "posix", "--sidecar", str(folder / "meta"), str(folder / "data")],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "ROOT_ACCESS_KEY": access, "ROOT_SECRET_KEY": secret},
        )
        try:
            _wait(process, port, log)
            yield S3Server(f"http://127.0.0.1:{port}", access, secret, "us-east-1", "engines", process)
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"the S3 server does not listen: {log.read_text()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
