"""`enginewright-operator run`: settings that cannot work end it at once, with a sentence."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from enginewright_operator.main import app

GOOD = ["--builder-image", "b@sha256:1", "--serving-image", "s", "--store", "file:///x", "--store-host-path"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--builder-image", "b:1", *GOOD[2:]], 2, "by digest"),
        (GOOD[:-1], 20, "volume claim"),
        ([*GOOD, "--kubeconfig", "/nonexistent"], 20, "/nonexistent"),
        (["--builder-image", "b@sha256:1"], 2, "Missing option"),
    ],
)
def test_refusals(
    arguments: list[str], code: int, said: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["run", *arguments])
    assert result.exit_code == code
    assert said in result.output + capfd.readouterr().err
