"""Writes the fixtures of the Argo CD health check, in Argo CD's own form: `python -m tests.gitops.fixtures`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import yaml
from lupa.lua51 import LuaRuntime

from enginewright_cluster.port import Object
from tests.gitops.life import life, shortened

HEALTH = Path(__file__).parents[2] / "examples" / "gitops" / "argocd" / "health"


def health(manifest: Object) -> dict[str, str]:
    """What the check says of an object. Argo CD's interpreter is a Lua 5.1 too."""
    lua = LuaRuntime()
    lua.globals().obj = lua.table_from(manifest, recursive=True)
    found: Any = lua.execute((HEALTH / "health.lua").read_text())
    return {"status": str(found.status), "message": str(found.message)}


def files() -> dict[str, str]:
    """Path below the folder to content."""
    objects = {name: shortened(manifest) for name, manifest in asyncio.run(life()).items()}
    written = {
        f"testdata/{name}.yaml": yaml.safe_dump(item, sort_keys=False, width=120) for name, item in objects.items()
    }
    tests = [{"healthStatus": health(item), "inputPath": f"testdata/{name}.yaml"} for name, item in objects.items()]
    return {**written, "health_test.yaml": yaml.safe_dump({"tests": tests}, sort_keys=False, width=120)}


def main() -> None:
    """Write them."""
    for name, text in files().items():
        path = HEALTH / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
