"""How failures reach the operator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from enginewright_api.errors import DeterministicError, EnginewrightError, ResourceError, TransientError
from enginewright_serving.termination import reported


@pytest.mark.parametrize(
    ("error", "code"),
    [(DeterministicError("A", "m"), 20), (ResourceError("A", "m"), 21), (TransientError("A", "m" * 9000), 22)],
)
def test_message_and_exit_code(
    error: EnginewrightError,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TERMINATION_MESSAGE_PATH", str(tmp_path / "message"))
    with pytest.raises(typer.Exit) as caught, reported():
        raise error
    assert caught.value.exit_code == code
    told = json.loads((tmp_path / "message").read_text())
    assert (told["reason"], told["class"]) == ("A", error.failure_class.value)
    assert (tmp_path / "message").stat().st_size <= 4096
    assert json.loads(capsys.readouterr().err)["event"] == "failed"


def test_a_message_that_cannot_be_written_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERMINATION_MESSAGE_PATH", str(tmp_path / "absent" / "message"))
    with pytest.raises(typer.Exit) as caught, reported():
        raise DeterministicError("A", "why")
    assert caught.value.exit_code == 20
    assert "why" in capsys.readouterr().err


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), reported():
        raise ZeroDivisionError
