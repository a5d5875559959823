"""One contender as a process: `python answering.py MODULE VARIANT CHECKPOINT FOLDER THREADS`, a JSON request a line in,
a JSON reply a line out.

    first reply   {"versions": {"torch": "2.13.0", ...}}
    request       {"ids": [[101, ...], ...], "mask": [[1, ...], ...], "vectors": false}
    reply         {"seconds": 0.0123, "vectors": [[...], ...] or null}
    any failure   {"failure": "what went wrong"}, and the process ends

It runs in the contender's own environment, so it imports nothing of ours. Seconds are of the runtime alone, from arrays
to arrays: neither tokenizing nor pooling nor this protocol is in them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[Any, Any], Any]
"""ids and mask, int64 [batch, tokens], to float32 token states [batch, tokens, width] or vectors [batch, width]."""

_TOLD = (
    "torch",
    "transformers",
    "onnxruntime",
    "openvino",
    "nncf",
    "optimum",
    "optimum-onnx",
    "optimum-intel",
    "olive-ai",
)


def main() -> None:
    """Serve until standard input ends."""
    module, variant, checkpoint, folder, threads = sys.argv[1:]
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print as they like

    def reply(**content: object) -> None:
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    try:
        run: Run = importlib.import_module(module).load(variant, Path(checkpoint), Path(folder), int(threads))
        reply(versions=_versions())
        for line in sys.stdin:
            asked = json.loads(line)
            ids, mask = np.array(asked["ids"], np.int64), np.array(asked["mask"], np.int64)
            begun = time.perf_counter()
            answer = run(ids, mask)
            seconds = time.perf_counter() - begun
            reply(seconds=seconds, vectors=_pooled(answer, mask).tolist() if asked["vectors"] else None)
    except Exception as error:  # whatever a library raises is told, and the contest goes on without it
        reply(failure=f"{type(error).__name__}: {error}"[:400])
        raise


def _pooled(answer: Any, mask: Any) -> Any:
    """Mean over tokens that are there, length one."""
    states = np.asarray(answer, np.float32)
    if states.ndim == 3:
        weights = mask[:, :, None].astype(np.float32)
        states = (states * weights).sum(1) / weights.sum(1)
    return states / np.linalg.norm(states, axis=1, keepdims=True)


def _versions() -> dict[str, str]:
    found = {}
    for name in _TOLD:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
