"""What the gateway adds: the same inference asked of tritonserver directly and through the gateway, in turns.

    python -m benchmarks.gateway [--requests 400] [--json FILE]

Both are processes of their own; the client is one blocking connection (latency) or eight (throughput). The model behind
does next to nothing, so that what is seen is the way there and back. A ratio below 1 is the gateway's price.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import multiprocessing
import os
import platform
import statistics
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import uvloop

from enginewright_cluster.fake import FakeCluster
from enginewright_gateway import wire
from enginewright_gateway.app import Listening, serve
from enginewright_gateway.exchange import log_to_stdout
from enginewright_gateway.settings import GatewaySettings
from tests.gateway.running_gateway import model_manifest, slice_manifest
from tests.gateway.triton_process import TritonProcess, missing

Ask = Callable[[], bytes]
TEXT = "the quick brown fox jumps over the lazy dog"
CONNECTIONS = 8


def _gateway_process(http_port: int, grpc_port: int, pipe: Connection) -> None:
    """The gateway as it runs in a pod, log lines included; only its cluster is in memory."""

    async def run() -> None:
        cluster = FakeCluster()
        await cluster.apply(model_manifest())
        await cluster.apply(slice_manifest("words", "one", http_port, grpc_port))
        listening: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()
        listening.add_done_callback(lambda opened: pipe.send(opened.result()))
        settings = GatewaySettings(http_port=0, grpc_port=0, allow_anonymous=True, drain_seconds=1)
        await serve(cluster, settings, listening=listening)

    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    log_to_stdout()
    uvloop.run(run())


def _http(port: int, path: str, body: bytes, headers: dict[str, str]) -> Ask:
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask() -> bytes:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {data[:200]!r}")
        return data

    return ask


def _binary(port: int, texts: list[bytes]) -> Ask:
    raw = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    tensor = {
        "name": "text", "shape": [len(texts), 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)},
    }  # fmt: skip
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return _http(port, "/v2/models/words/infer", head + raw, headers)


def _openai(port: int, texts: list[bytes], encoding: str) -> Ask:
    body = {"model": "words", "input": [text.decode() for text in texts], "encoding_format": encoding}
    return _http(port, "/v1/embeddings", json.dumps(body).encode(), {"Content-Type": "application/json"})


def _grpc(port: int, texts: list[bytes]) -> Ask:
    call = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary("/inference.GRPCInferenceService/ModelInfer")
    message = wire.text_request("words", texts)
    return lambda: call(message)


def _in_turns(ours: Ask, reference: Ask, requests: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each, one after the other, so that noise meets both."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(requests + 20):
        for ask, kept in zip((ours, reference), times, strict=True):
            began = time.perf_counter()
            ask()
            if turn >= 20:
                kept.append((time.perf_counter() - began) * 1000)
    return times


def _per_second(make: Callable[[], Ask], requests: int) -> float:
    """Requests a second over several connections."""
    asks = [make() for _ in range(CONNECTIONS)]

    def loop(ask: Ask) -> None:
        for _ in range(requests // CONNECTIONS):
            ask()

    for ask in asks:
        ask()
    began = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as executor:
        list(executor.map(loop, asks))
    return requests // CONNECTIONS * CONNECTIONS / (time.perf_counter() - began)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(triton: TritonProcess, gateway: Listening, pid: int, requests: int) -> list[dict[str, Any]]:
    """All rows."""
    rows: list[dict[str, Any]] = []
    for size in (1, 8):
        texts = [f"{TEXT} {index}".encode() for index in range(size)]
        cases: dict[str, tuple[Callable[[], Ask], Callable[[], Ask]]] = {
            f"embeddings/base64/b{size}": (
                lambda texts=texts: _openai(gateway.http_port, texts, "base64"),
                lambda texts=texts: _binary(triton.http_port, texts),
            ),
            f"embeddings/float/b{size}": (
                lambda texts=texts: _openai(gateway.http_port, texts, "float"),
                lambda texts=texts: _binary(triton.http_port, texts),
            ),
            f"kserve-http/b{size}": (
                lambda texts=texts: _binary(gateway.http_port, texts),
                lambda texts=texts: _binary(triton.http_port, texts),
            ),
            f"kserve-grpc/b{size}": (
                lambda texts=texts: _grpc(gateway.grpc_port, texts),
                lambda texts=texts: _grpc(triton.grpc_port, texts),
            ),
        }
        for case, (ours, reference) in cases.items():
            used = _cpu_seconds(pid)
            mine, theirs = _in_turns(ours(), reference(), requests)
            used = _cpu_seconds(pid) - used
            rows.append(
                {
                    "case": f"{case}/p50-milliseconds",
                    "ours": round(statistics.median(mine), 3),
                    "reference": round(statistics.median(theirs), 3),
                    "ratio": round(statistics.median(theirs) / statistics.median(mine), 3),
                    "added_p50_milliseconds": round(statistics.median(mine) - statistics.median(theirs), 3),
                    "added_p95_milliseconds": round(float(np.percentile(mine, 95) - np.percentile(theirs, 95)), 3),
                    "gateway_cpu_milliseconds_per_request": round(used / (requests + 20) * 1000, 3),
                }
            )
            if size == 1:
                through, straight = _per_second(ours, requests * 2), _per_second(reference, requests * 2)
                rows.append(
                    {
                        "case": f"{case}/requests-per-second-{CONNECTIONS}-connections",
                        "ours": round(through, 1),
                        "reference": round(straight, 1),
                        "ratio": round(through / straight, 3),
                    }
                )
    return rows


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=400, help="of each kind, 50 to 5000")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    if reason := missing():
        raise SystemExit(reason)
    requests = min(5000, max(50, arguments.requests))
    triton = TritonProcess().start()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_gateway_process, args=(triton.http_port, triton.grpc_port, theirs))
    process.start()
    try:
        if not ours.poll(30):
            raise SystemExit("the gateway did not start")
        gateway: Listening = ours.recv()
        rows = measure(triton, gateway, process.pid or 0, requests)
    finally:
        process.terminate()
        process.join(10)
        triton.close()
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    for row in rows:
        line = f"{row['case']:52} gateway {row['ours']:8.2f}  direct {row['reference']:8.2f}  ratio {row['ratio']:.2f}"
        print(line + (f"  added {row['added_p50_milliseconds']:+.2f} ms" if "added_p50_milliseconds" in row else ""))
    if arguments.json:
        result = {"name": "gateway", "machine": machine, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
