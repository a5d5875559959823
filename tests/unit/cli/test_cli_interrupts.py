"""`enginewright build` that is stopped or killed: no builder runs on, and its imports leave no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[3]


def test_an_interrupt_amid_the_builders_imports_ends_it_in_silence(tmp_path: Path) -> None:
    process, builders = _begun(tmp_path)
    time.sleep(0.1)  # its imports take most of a second
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, _ = process.communicate(timeout=30)
    assert not any(builder.is_running() for builder in builders)
    assert process.returncode == 130
    assert "Traceback" not in output
    assert "rung 1 of 3" in output


def test_no_builder_goes_on_for_a_command_that_was_killed(tmp_path: Path) -> None:
    process, builders = _begun(tmp_path)
    process.kill()
    _, running = psutil.wait_procs(builders, timeout=20)
    assert running == []
    process.communicate(timeout=30)


def _begun(state: Path) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """`enginewright build`, and its builder just after it was started."""
    command = str(Path(sys.executable).with_name("enginewright"))
    model = ROOT / "examples" / "minilm" / "model.yaml"
    process = subprocess.Popen(
        [command, "build", "-f", str(model), "--state-dir", str(state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not (builders := _builders(process)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert builders
    return process, builders


def _builders(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children():
        try:
            if any("enginewright-builder" in word for word in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found
