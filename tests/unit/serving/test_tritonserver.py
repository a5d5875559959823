"""How the server is started: command line, environment, what it needs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_serving.tritonserver import Listen, check_numpy, command, environment, libpython_folder, link_backends

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


def test_numpy_2_is_refused() -> None:
    for fine in ("1.26.4", "1.99"):
        check_numpy(fine)
    for wrong in ("2.0.0", "2.4.1", "10.0"):
        with pytest.raises(DeterministicError, match="numpy<2") as caught:
            check_numpy(wrong)
        assert caught.value.reason == "NumpyTooNew"
    check_numpy()  # this environment serves


def test_a_missing_libpython_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(DeterministicError, match=rf"apt-get install libpython{VERSION}") as caught:
        libpython_folder([None, str(tmp_path)], find=lambda _: None)
    assert caught.value.reason == "LibpythonMissing"


def test_libpython_is_looked_for_in_order(tmp_path: Path) -> None:
    assert libpython_folder([str(tmp_path)], find=lambda name: f"lib{name}.so") == ""
    (tmp_path / f"libpython{VERSION}.so.1.0").touch()
    assert libpython_folder([None, str(tmp_path)], find=lambda _: None) == str(tmp_path)


def test_the_server_loads_one_model_and_listens_where_told(tmp_path: Path) -> None:
    line = command(
        tmp_path, "m", Listen("127.0.0.2", 1, 2, 3), backends=tmp_path / "b", memory_prefix="p-", exit_timeout_seconds=4
    )
    options = dict(part.split("=", 1) for part in line[1:] if part.count("=") == 1)
    assert line[0].endswith("tritonserver")
    assert "--metrics-config=summary_latencies=true" in line
    assert "--disable-auto-complete-config" in line
    assert "--backend-config=python,shm-region-prefix-name=p-" in line
    assert {name.removeprefix("--"): value for name, value in options.items() if name != "--cache-directory"} == {
        "model-repository": str(tmp_path),
        "backend-directory": str(tmp_path / "b"),
        "model-control-mode": "explicit",
        "load-model": "m",
        "http-address": "127.0.0.2",
        "http-port": "1",
        "grpc-address": "127.0.0.2",
        "grpc-port": "2",
        "metrics-address": "127.0.0.2",
        "metrics-port": "3",
        "exit-timeout-secs": "4",
    }


def test_the_models_process_gets_this_environments_python_and_the_threads() -> None:
    made = environment({"PATH": "/bin", "LD_LIBRARY_PATH": "/mine", "KEPT": "1"}, threads=3, activity_file=Path("/a"))
    assert made["PATH"].split(":")[0] == str(Path(sys.prefix, "bin"))
    assert made["LD_LIBRARY_PATH"].endswith(":/mine")
    assert (made["ENGINE_THREADS"], made["OMP_NUM_THREADS"], made["KEPT"]) == ("3", "3", "1")


def test_backends_are_links_and_the_package_stays_as_it_was(tmp_path: Path) -> None:
    made = link_backends(tmp_path / "backends") / "python"
    assert {file.name for file in made.iterdir()} == {
        "libtriton_python.so",
        "triton_python_backend_utils.py",
        "triton_python_backend_stub",
    }
    assert all(file.is_symlink() and file.exists() for file in made.iterdir())
