"""The inference server's own metrics, as the dashboard names them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx

from tests.gateway.running_gateway import RunningGateway
from tests.gateway.triton_process import TritonProcess

DASHBOARD = Path(__file__).parents[2] / "helm" / "enginewright" / "files" / "dashboard.json"


def test_the_dashboard_names_what_the_server_tells(triton: TritonProcess, gateway: RunningGateway) -> None:
    # Those of GPUs (nv_gpu_...) are only told where there is one.
    named = set(re.findall(r"\bnv_inference_\w+", " ".join(_expressions())))
    text = httpx.get(f"http://127.0.0.1:{triton.metrics_port}/metrics").text
    assert len(named) >= 5
    assert [name for name in named if f'{name}{{model="words"' not in text] == []


def _expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]
