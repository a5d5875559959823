"""Children never outlive the builder; memory and disk are known before they run out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_builder.failures import InterruptedBuildError, OutOfMemoryError
from enginewright_builder.machine import Disturbance, describe_machine
from enginewright_builder.processes import Children
from enginewright_builder.resources import Capacity, MemoryWatch, check_fits, resident_bytes
from enginewright_builder.toolchain.client import Toolchain
from enginewright_builder.toolchain.tasks import ExportTask

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
PARENT = [
    sys.executable,
    "-c",
    "import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid,"
    " flush=True); time.sleep(60)",
]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)",
]


def gone(pid: int, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_closing_ends_children_and_grandchildren() -> None:
    children = Children()
    parent = children.start(PARENT, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    grandchild = int(parent.stdout.readline())
    children.close()
    assert parent.returncode is not None
    assert gone(grandchild)
    with pytest.raises(InterruptedBuildError):
        children.start(SLEEP)


def test_grandchildren_in_sessions_of_their_own_are_ended_too() -> None:
    children = Children()
    script = PARENT[2].replace("time.sleep(60)'])", "time.sleep(60)'], start_new_session=True)")
    parent = children.start([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    grandchild = int(parent.stdout.readline())
    children.stop(parent)
    assert gone(grandchild)
    children.close()


def test_what_a_child_starts_while_it_ends_is_ended_too() -> None:
    children = Children()
    late = (
        "import os, signal, subprocess, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(0.3)\n"
        "    started = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "    print(started.pid, flush=True)\n"
        "    os._exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print(1, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = children.start([sys.executable, "-c", late], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    parent.stdout.readline()
    children.close()
    assert gone(int(parent.stdout.readline()))


def test_whoever_closes_too_waits_until_all_are_gone() -> None:
    children = Children()
    stubborn = children.start(STUBBORN, stdout=subprocess.PIPE)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    first = threading.Thread(target=children.close)
    first.start()
    time.sleep(0.5)
    children.close()
    assert stubborn.returncode == -signal.SIGKILL, "an interrupted build closes in a thread of its own, and again"
    first.join()


def test_the_children_of_others_are_left_alone() -> None:
    ours, theirs = Children(), Children()
    child, other = ours.start(SLEEP), theirs.start(SLEEP)
    ours.stop(child)
    ours.close()
    assert other.poll() is None
    theirs.close()
    assert other.returncode is not None


def test_a_child_that_ignores_sigterm_is_killed() -> None:
    children = Children()
    stubborn = children.start(STUBBORN, stdout=subprocess.PIPE)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    begun = time.monotonic()
    children.stop(stubborn)
    assert stubborn.returncode == -signal.SIGKILL
    assert time.monotonic() - begun < 8
    children.close()


def test_children_started_from_a_thread_outlive_that_thread() -> None:
    children = Children()
    started: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=lambda: started.append(children.start(SLEEP)))
    thread.start()
    thread.join()
    time.sleep(0.2)
    assert started[0].poll() is None
    children.close()


def test_kill_nine_of_the_builder_takes_its_children_along(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from enginewright_builder.processes import Children\n"
        "print(Children().start([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    builder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert builder.stdout is not None
    child = int(builder.stdout.readline())
    assert psutil.pid_exists(child)
    builder.kill()
    builder.wait()
    builder.stdout.close()
    assert gone(child)


DESCRIPTION = EngineDescription.model_validate(
    {
        "task": "Embedding",
        "backend": "OpenVINO",
        "entry": "openvino.xml",
        "inputs": ["input_ids", "attention_mask"],
        "output": "embedding",
        "outputDimension": 8,
        "limits": {},
        "runtimePackage": "openvino",
        "runtimeVersion": "0",
    }
)


@pytest.mark.parametrize(
    ("number", "kind", "reason"),
    [
        (signal.SIGKILL, OutOfMemoryError, "OutOfMemory"),
        (signal.SIGSEGV, DeterministicError, "ToolchainCrashed"),
    ],
)
def test_a_toolchain_that_is_killed_says_why(
    tmp_path: Path, number: signal.Signals, kind: type[Exception], reason: str
) -> None:
    children = Children()
    memory = MemoryWatch(os.getpid())
    memory.peak_bytes = 2**30
    with (tmp_path / "log").open("wb") as log:
        toolchain = Toolchain(children, {}, memory, log)
        (child,) = psutil.Process().children()
        child.send_signal(number)
        with pytest.raises(kind) as caught:
            toolchain.perform(ExportTask(checkpoint=tmp_path, description=DESCRIPTION, into=tmp_path))
    assert getattr(caught.value, "reason", "") == reason
    if isinstance(caught.value, OutOfMemoryError):
        assert caught.value.needs_memory_bytes is not None
        assert caught.value.needs_memory_bytes > 2**30
    children.close()


def test_a_short_peak_is_seen_and_watching_takes_little() -> None:
    hungry = "import time; x = bytearray(b'1') * (300 * 2**20); print(1, flush=True); time.sleep(0.6)"
    with MemoryWatch(os.getpid()) as memory:
        time.sleep(0.5)
        before, begun = memory.peak_bytes, time.process_time()
        subprocess.run([sys.executable, "-c", hungry], stdout=subprocess.DEVNULL, check=True)
        time.sleep(2.0)
        assert memory.peak_bytes - before > 280 * 2**20
        assert time.process_time() - begun < 0.5  # of about three seconds


def test_memory_of_children_is_counted() -> None:
    children = Children()
    before = resident_bytes(psutil.Process())
    hungry = children.start(
        [sys.executable, "-c", "x = bytearray(200 * 2**20); print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert hungry.stdout is not None
    hungry.stdout.readline()
    assert resident_bytes(psutil.Process()) - before > 150 * 2**20
    children.close()


@pytest.mark.parametrize(
    ("weights", "capacity", "word"),
    [
        (2**30, Capacity(memory_bytes=2 * 2**30, disk_bytes=2**40), "memory"),
        (2**30, Capacity(memory_bytes=2**40, disk_bytes=2 * 2**30), "disk"),
    ],
)
def test_what_cannot_fit_is_refused_at_once(weights: int, capacity: Capacity, word: str) -> None:
    with pytest.raises(DeterministicError) as caught:
        check_fits(weights, capacity)
    assert caught.value.reason == "BuildWillNotFit"
    assert word in caught.value.message
    assert "2.0 GiB" in caught.value.message
    check_fits(weights // 100, Capacity(memory_bytes=2**33, disk_bytes=2**33))


def test_capacity_is_that_of_this_machine(tmp_path: Path) -> None:
    found = Capacity.of(tmp_path)
    assert 0 < found.memory_bytes <= psutil.virtual_memory().total
    assert found.disk_bytes > 0


def test_a_machine_is_described_by_model_and_telling_flags(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: Some CPU\ncpu family\t: 6\nmodel\t: 207\nflags\t: fpu avx2 avx512_vnni sse\n")
    assert describe_machine(cpuinfo) == f"Some CPU (family 6 model 207), {os.cpu_count()} CPUs, avx2 avx512_vnni"
    assert "no special flags" in describe_machine(tmp_path / "none")


def test_work_of_others_shows_as_disturbance_and_our_own_does_not() -> None:
    spin = [sys.executable, "-c", "import time\nend = time.time() + 1.2\nwhile time.time() < end: pass"]
    process = subprocess.Popen(spin)
    others = Disturbance([])
    ours = Disturbance([os.getpid()])
    time.sleep(1.0)
    own, theirs = ours.share(), others.share()
    process.wait()
    # By how much depends on who else is on this machine.
    assert theirs > own
