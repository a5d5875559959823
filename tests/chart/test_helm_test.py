"""What `helm test` runs, run here against a real gateway."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chart.rendering import Render, named, of_kind
from tests.gateway.running_gateway import RunningGateway

KEYS = "--set=gateway.allowAnonymous=false,gateway.keysSecret=keys"


def ask(render: Render, gateway: RunningGateway, *options: str) -> subprocess.CompletedProcess[str]:
    """The command of the test's pod, with another interpreter and address."""
    pod = named(render(*options), "Pod", "-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    program, base, wanted = container["args"]
    assert base == "http://release-enginewright-gateway.system.svc:8000"
    here = f"http://127.0.0.1:{gateway.listening.http_port}"
    # As in the pod: the image's plain interpreter knows no package of ours.
    command = [sys.executable, "-I", "-c", program, here, wanted]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_an_open_gateway_passes_and_a_closed_one_does_not(render: Render) -> None:
    with RunningGateway() as gateway:
        gateway.add_model()
        done = ask(render, gateway)
        assert (done.returncode, done.stdout) == (0, "models: words\n"), done.stderr
        refused = ask(render, gateway, KEYS)
        assert refused.returncode == 1
        assert "/v1/models: 200 instead of 401" in refused.stderr


def test_a_gateway_with_keys_passes_by_letting_nobody_in(render: Render, tmp_path: Path) -> None:
    (tmp_path / "team").write_text('{"sha256": "' + "0" * 64 + '", "models": ["*"]}')
    with RunningGateway(keys_dir=tmp_path) as gateway:
        assert ask(render, gateway, KEYS).returncode == 0
        assert ask(render, gateway).returncode == 1


@pytest.mark.parametrize("options", [("--set=gateway.enabled=false,autoscaler.enabled=false",)])
def test_without_a_gateway_there_is_nothing_to_ask(render: Render, options: tuple[str, ...]) -> None:
    assert not list(of_kind(render(*options), "Pod"))
