"""The gateway as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: me, user: {}}]
"""


def test_all_that_it_logs_is_json_and_its_settings_come_first(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(KUBECONFIG)
    command = [sys.executable, "-c", "from enginewright_gateway.main import main; main()", "run"]
    options = [
        "--http-port=0",
        "--grpc-port=0",
        "--allow-anonymous",
        f"--kubeconfig={config}",
        "--drain-delay-seconds=0",
    ]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        try:
            lines = []
            for line in program.stderr:
                lines.append(json.loads(line))
                if "watch of" in line:
                    break
            program.send_signal(signal.SIGTERM)
            assert program.wait(timeout=20) == 0
        finally:
            program.kill()
    assert lines[0]["message"] == "settings" and lines[0]["settings"]["allow_anonymous"] is True
    assert lines[-1]["level"] == "warning"


def test_what_ends_it_is_told_likewise() -> None:
    command = [sys.executable, "-c", "from enginewright_gateway.main import main; main()", "run", "--allow-anonymous"]
    ended = subprocess.run([*command, "--kubeconfig=/nowhere/config"], capture_output=True, text=True, check=False)
    told = [json.loads(line) for line in ended.stderr.splitlines()]
    assert (ended.returncode, told[-1]["message"], told[-1]["level"]) == (20, "stopped", "error")
    assert "/nowhere/config" in told[-1]["error"]
