"""`enginewright build` that is told to stop leaves neither processes nor folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.builder.tiny import save_tiny
from tests.objects.table import model


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=str)
def test_a_build_that_is_stopped_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    source = {"objectStore": {"uri": save_tiny("bert", tmp_path / "model").as_uri()}}
    limits = {"limits": {"maxBatchSize": 4, "maxInputTokens": 16}}
    file, temporary = tmp_path / "model.json", tmp_path / "temporary"
    file.write_text(json.dumps(model(source=source, engine=limits)))
    temporary.mkdir()
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("enginewright")), "build", "-f", str(file)],
        env=os.environ | {"TMPDIR": str(temporary), "ENGINEWRIGHT_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    while '"reference"' not in (line := process.stdout.readline()):
        assert line, "it ended by itself"
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    assert "Traceback" not in process.stdout.read()
    assert process.wait(60) == code
    _, alive = psutil.wait_procs(started, timeout=15)
    assert not alive
    assert not list(temporary.glob("enginewright-build-*"))
