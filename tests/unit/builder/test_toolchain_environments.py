"""Toolchains of their own: where their interpreter is, what it can import, and what is said when there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_builder.processes import Children
from enginewright_builder.toolchain import environments
from enginewright_builder.toolchain.environments import DEFAULT, VARIABLE, import_path, lock_digest, python_of


@pytest.fixture
def children() -> Children:
    return Children()


def _nobody(fraction: float, message: str) -> None:
    return


def test_the_default_toolchain_is_the_builders_own_environment(children: Children) -> None:
    assert python_of(DEFAULT, children, _nobody) == Path(sys.executable)


def test_a_ready_environment_of_an_image_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: Children
) -> None:
    python = tmp_path / "optimum" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert python_of("optimum", children, _nobody) == python


def test_an_image_without_the_toolchain_says_what_to_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: Children
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(DeterministicError, match="TOOLCHAINS=optimum") as caught:
        python_of("optimum", children, _nobody)
    assert caught.value.reason == "ToolchainMissing"


def test_a_toolchain_without_a_lock_is_missing(children: Children) -> None:
    with pytest.raises(DeterministicError, match="no lock file") as caught:
        python_of("imaginary", children, _nobody)
    assert caught.value.reason == "ToolchainMissing"


@pytest.fixture
def small_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A toolchain whose lock names nothing: quick to install."""
    locks = tmp_path / "locks"
    locks.mkdir()
    (locks / "small.lock").write_text("# nothing\n")
    monkeypatch.setattr(environments, "LOCKS", locks)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return locks / "small.lock"


def test_an_environment_is_made_once_and_named_by_its_lock(small_lock: Path, children: Children) -> None:
    told: list[str] = []
    python = python_of("small", children, lambda fraction, message: told.append(message))
    assert told == ["installing toolchain small (once)"]
    assert lock_digest("small")[:16] in str(python)
    version = subprocess.run([python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, check=True)
    assert version.stdout.decode().strip() == str(sys.version_info[:2])
    assert python_of("small", children, lambda fraction, message: told.append(message)) == python
    assert len(told) == 1
    small_lock.write_text("# other\n")
    assert python_of("small", children, _nobody) != python


def test_a_half_made_environment_is_made_again(small_lock: Path, children: Children) -> None:
    python = python_of("small", children, _nobody)
    (python.parent.parent / ".ready").unlink()
    python.unlink()
    assert python_of("small", children, _nobody).exists()


def test_packages_that_cannot_be_had_are_a_reason_to_try_again(small_lock: Path, children: Children) -> None:
    small_lock.write_text(f"no-such-package-of-ours==1 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(TransientError, match="toolchain small cannot be installed now"):
        python_of("small", children, _nobody)


def test_a_toolchain_process_imports_nothing_that_only_the_builder_has(tmp_path: Path) -> None:
    """Its environment holds the toolchain and pydantic: no store, no cluster, no server."""
    script = (
        "import sys\n"
        "import enginewright_builder.toolchain.process\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(import_path(tmp_path / "path")), "PATH": ""},
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    ours = {name for name in found if name.startswith("enginewright")}
    assert ours <= {"enginewright_api", "enginewright_builder"}
    locks = [file.read_text() for file in environments.LOCKS.glob("*.lock")]
    assert locks
    for needed in {"pydantic": "pydantic", "numpy": "numpy", "yaml": "pyyaml"}.items():
        module, distribution = needed
        assert module not in found or all(f"\n{distribution}==" in lock for lock in locks), module
    assert not {"fsspec", "psutil", "jinja2", "duckdb", "tritonclient", "torch", "openvino", "onnx"} & set(found)
