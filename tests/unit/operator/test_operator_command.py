"""`enginewright-operator run`: settings that cannot work end it at once, with a sentence."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from enginewright_api.errors import DeterministicError
from enginewright_operator.command_line import settings_of
from enginewright_operator.main import app

GOOD = ["--builder-image", "b@sha256:1", "--serving-image", "s", "--store", "file:///x", "--store-host-path"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--builder-image", "b:1", *GOOD[2:]], 2, "by digest"),
        (GOOD[:-1], 20, "volume claim"),
        ([*GOOD, "--kubeconfig", "/nonexistent"], 20, "/nonexistent"),
        (["--builder-image", "b@sha256:1"], 2, "Missing option"),
        ([*GOOD, "--api-qps", "-1"], 2, "--api-qps"),
    ],
)
def test_refusals(
    arguments: list[str], code: int, said: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["run", *arguments])
    assert result.exit_code == code
    assert said in result.output + capfd.readouterr().err


def test_settings_are_read_off_a_command_line_and_its_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEWRIGHT_BUILD_CPU", "99")
    environment = {"ENGINEWRIGHT_IMAGE_PULL_SECRETS": "one two", "ENGINEWRIGHT_DRAIN_SECONDS": "7", "HOME": "/tmp"}
    settings = settings_of([*GOOD, "--drain-seconds=3"], environment)
    assert settings.toolchain.digest == "sha256:1"
    assert settings.builds.cpu == "2"
    assert settings.image_pull_secrets == ("one", "two")
    assert settings.drain_seconds == 3.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([*GOOD, "--colour=red"], "--colour"), (GOOD[2:], "--builder-image"), (GOOD[:-1], "volume claim")],
)
def test_a_command_line_that_the_operator_would_refuse_is_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(DeterministicError, match=said):
        settings_of(arguments, {})
