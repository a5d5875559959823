"""Load, a bad engine and a good one, on a real node: what the gateway measures decides, and no caller notices."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from openai import OpenAI, OpenAIError

from tests.e2e.installation import MODEL_FILE, Object, Platform, condition, eventually, leftovers

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("e2e")]

NAME = "shifting"
TEXTS = ["A sentence of some length, so that an engine has something to do with it, and another one has more."] * 8
FLOAT32: Object = {"quantization": {"format": "None"}, "fallbacks": []}
"""The untouched model compiled: right by its answers, and several times slower than INT8."""


class Callers:
    """Clients without pause, until told otherwise."""

    def __init__(self, platform: Platform) -> None:
        address = platform.address_of(f"{platform.release}-enginewright-gateway", platform.namespace)
        self._client = OpenAI(base_url=f"http://{address}:8000/v1", api_key="none", timeout=60, max_retries=0)
        self._over = threading.Event()
        self.answers: Counter[str] = Counter()

    @contextmanager
    def calling(self, clients: int) -> Iterator[None]:
        """So many at a time."""
        self._over.clear()
        with ThreadPoolExecutor(clients) as pool:
            running = [pool.submit(self._call) for _ in range(clients)]
            try:
                yield
            finally:
                self._over.set()
            for call in running:
                call.result()

    def _call(self) -> None:
        while not self._over.is_set():
            try:
                self._client.embeddings.create(model=NAME, input=TEXTS)
                self.answers["answered"] += 1
            except OpenAIError as error:
                self.answers[repr(error)[:300]] += 1
            time.sleep(0.02)


@pytest.fixture(scope="module")
def model(platform: Platform) -> Object:
    """The example under another name; its engine is in the store already when the tests before this one have run."""
    manifest = yaml.safe_load(MODEL_FILE.read_text())
    manifest["metadata"]["name"] = NAME
    manifest["spec"]["scaling"] = {
        "mode": "Objectives", "minReplicas": 1, "maxReplicas": 2, "objectives": {"queueDepthPerReplica": 1},
    }  # fmt: skip
    platform.cluster.apply(manifest, namespace=platform.models)
    where = (f"--namespace={platform.models}", "--timeout=540s")
    platform.cluster.kubectl("wait", "--for=condition=Ready", f"optimizedmodel/{NAME}", *where, timeout=560)
    return _model(platform)


@pytest.fixture
def callers(platform: Platform) -> Callers:
    """None of whose requests may fail."""
    return Callers(platform)


def test_load_brings_a_second_replica(platform: Platform, model: Object, callers: Callers) -> None:
    def doubled() -> bool:
        return bool(_model(platform)["status"].get("replicas") == 2)

    with callers.calling(clients=12), platform.steps.timed("load → 2 replicas ready"):
        eventually(doubled, 120, "two replicas are ready")
    assert set(callers.answers) == {"answered"}, callers.answers


def test_a_slow_canary_goes_back_by_itself(platform: Platform, model: Object, callers: Callers) -> None:
    manual = {"mode": "Manual", "minReplicas": None, "maxReplicas": None, "objectives": None}
    _patch(platform, scaling=manual)
    platform.cluster.kubectl("scale", f"optimizedmodel/{NAME}", "--replicas=1", f"--namespace={platform.models}")
    canary = {"strategy": "Canary", "maxSurge": 1, "guard": {"maxLatencyRatio": 1.2, "maxErrorRate": 0.01}}
    _patch(platform, optimization=FLOAT32, rollout={**canary, "canary": {"steps": [{"weight": 50, "seconds": 10}]}})
    with platform.steps.timed("another engine built, its canary has a share"):
        eventually(lambda: _weight(platform) == 50, 500, "the canary gets half of the requests")
    with callers.calling(clients=2), platform.steps.timed("slow canary → rolled back"):
        eventually(lambda: _rolled_out(platform)["reason"] == "RolledBack", 120, "RolledOut is RolledBack")
    assert "maxLatencyRatio 1.2 is exceeded" in _rolled_out(platform)["message"]
    assert _model(platform)["status"]["active"]["artifactDigest"] == model["status"]["active"]["artifactDigest"]
    assert set(callers.answers) == {"answered"}, callers.answers


def test_a_canary_within_its_guard_takes_over(platform: Platform, model: Object, callers: Callers) -> None:
    before = model["status"]["active"]["artifactDigest"]
    _patch(platform, rollout={"guard": {"maxLatencyRatio": 50}})
    with callers.calling(clients=2), platform.steps.timed("good canary → serves"):
        eventually(lambda: _model(platform)["status"]["active"]["artifactDigest"] != before, 180, "it serves")
    assert _model(platform)["status"]["active"]["format"] == "None"
    assert set(callers.answers) == {"answered"}, callers.answers


def test_the_way_back_to_the_first_spec_builds_nothing(platform: Platform, model: Object, callers: Callers) -> None:
    jobs = {item["metadata"]["uid"] for item in platform.get("jobs")["items"]}
    first = yaml.safe_load(MODEL_FILE.read_text())["spec"]["optimization"]
    with callers.calling(clients=2), platform.steps.timed("A → B → A: A serves again"):
        _patch(platform, optimization=first, rollout={"strategy": "Rolling", "canary": None, "guard": None})
        wanted = model["status"]["active"]["artifactDigest"]
        eventually(lambda: _model(platform)["status"]["active"]["artifactDigest"] == wanted, 120, "A serves again")
    assert {item["metadata"]["uid"] for item in platform.get("jobs")["items"]} <= jobs
    assert set(callers.answers) == {"answered"}, callers.answers


def test_deleting_it_leaves_nothing_of_any_version(platform: Platform, model: Object) -> None:
    platform.cluster.kubectl("delete", "optimizedmodel", NAME, f"--namespace={platform.models}")
    eventually(lambda: not leftovers(platform), 90, f"nothing is left, not {leftovers(platform)}")


def _patch(platform: Platform, **spec: Any) -> None:
    patch = json.dumps({"spec": spec})
    platform.cluster.kubectl(
        "patch", "optimizedmodel", NAME, f"--namespace={platform.models}", "--type=merge", f"--patch={patch}"
    )


def _model(platform: Platform) -> Object:
    return platform.get("optimizedmodel", NAME)


def _weight(platform: Platform) -> int:
    rollout = _model(platform)["status"].get("rollout") or {}
    return int(rollout.get("weight") or 0)


def _rolled_out(platform: Platform) -> Object:
    return condition(_model(platform), "RolledOut")
