"""What a queue policy of Triton's own batcher would cost: the served model without one, as it is, and with one.

    python -m benchmarks.queue_policy [--seconds 5] [--threads N] [--workdir DIR] [--json FILE]

MiniLM INT8 behind the real server, clients that ask for one text at a time and ask again at once, both servers in turn.
The policy is the one that the fields of `batching` would give: at most 256 waiting, rejected after 10 s.
"""

from __future__ import annotations

import argparse
import json
import queue
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
from rich.console import Console
from rich.table import Table

from benchmarks.builds import built_engine
from benchmarks.encoder import request
from enginewright_builder.machine import default_threads, describe_machine
from enginewright_builder.processes import Children
from enginewright_builder.servers.server import Server

CLIENTS = (1, 2, 4, 16, 64)
_ROUNDS = 2
_BATCHING = "dynamic_batching {\n"
_POLICY = """  default_queue_policy {
    timeout_action: REJECT
    default_timeout_microseconds: 10000000
    max_queue_size: 256
  }
"""
_TEXT = b"Nobody had expected the second film to be better than the first."


class _WithPolicy(Server):
    """The same server, whose batcher keeps the bounds itself."""

    def _launch(self) -> Any:
        (config,) = (self._folder / "repository").glob("*/config.pbtxt")
        text = config.read_text()
        assert _BATCHING in text
        if _POLICY not in text:
            config.write_text(text.replace(_BATCHING, _BATCHING + _POLICY))
        return super()._launch()


def answered(server: Server, clients: int, seconds: float) -> list[float]:
    """Seconds of each answer while so many ask without pause."""
    done: queue.Queue[tuple[float, Any]] = queue.Queue()
    asked = tritonclient.grpc.InferInput("text", [1, 1], "BYTES")
    asked.set_data_from_numpy(np.array([[_TEXT]], dtype=object))
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{server.ports.grpc}") as client:

        def ask() -> None:
            client.async_infer(server.name, [asked], _noted(time.perf_counter(), done))

        def answer() -> float:
            taken, error = done.get(timeout=60)
            if error is not None:
                raise error
            return taken

        found: list[float] = []
        deadline = time.perf_counter() + seconds
        for _ in range(clients):
            ask()
        while time.perf_counter() < deadline:
            found.append(answer())
            ask()
        for _ in range(clients):
            answer()
    return found


def _noted(begun: float, done: queue.Queue[tuple[float, Any]]) -> Callable[..., None]:
    def note(result: Any, error: Any) -> None:  # the client gives both by name
        done.put((time.perf_counter() - begun, error))

    return note


def rows(without: Server, policy: Server, seconds: float) -> list[dict[str, Any]]:
    """A row for each number of clients."""
    found = []
    for clients in CLIENTS:
        times: dict[Server, list[float]] = {without: [], policy: []}
        for turn in range(_ROUNDS):
            for server in (without, policy) if turn % 2 else (policy, without):
                times[server] += answered(server, clients, seconds)
        ours, theirs = (
            {
                "answersPerSecond": round(len(each) / (_ROUNDS * seconds), 1),
                "p50": round(1000 * float(np.percentile(each, 50)), 1),
                "p99": round(1000 * float(np.percentile(each, 99)), 1),
            }
            for each in (times[without], times[policy])
        )
        ratio = round(ours["answersPerSecond"] / theirs["answersPerSecond"], 3)
        found.append({"case": f"clients{clients}", "ours": ours, "reference": theirs, "ratio": ratio})
    return found


def main() -> None:
    """Print both and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--workdir", type=Path, default=Path(tempfile.gettempdir()) / "enginewright-bench-encoder")
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    engine = built_engine(request(), given.workdir.resolve(), given.threads, name="MiniLM INT8")
    children = Children()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            without, policy = (
                kind.start(engine, name=name, scratch=Path(scratch), threads=given.threads, children=children)
                for kind, name in ((Server, "without"), (_WithPolicy, "policy"))
            )
            for server in (without, policy):
                server.wait_ready()
            found = rows(without, policy, given.seconds)
        finally:
            children.close()
    shown = Table("clients", "answers/s", "with a policy", "ratio", "p50", "with a policy", "p99", "with a policy")
    for item in found:
        ours, theirs = item["ours"], item["reference"]
        rates = (f"{each['answersPerSecond']:.0f}" for each in (ours, theirs))
        waits = (f"{each[name]:.0f} ms" for name in ("p50", "p99") for each in (ours, theirs))
        shown.add_row(item["case"].removeprefix("clients"), *rates, f"{item['ratio']:.2f} ×", *waits)
    console = Console(width=120)
    console.print(shown)
    console.print(f"{describe_machine()}; {given.threads} threads")
    if given.json:
        report = {"name": "queue_policy", "machine": describe_machine(), "rows": found}
        given.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
