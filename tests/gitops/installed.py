"""`enginewright` where only some extras are installed: `python -m tests.gitops.installed EXTRAS ARGUMENTS...`

The packages that pip would bring follow from pyproject.toml and from the metadata of what is installed here; modules of
all others are not found.
"""

from __future__ import annotations

import importlib.abc
import sys
import tomllib
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from types import ModuleType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
OURS = "enginewright"


def closure(extras: Iterable[str]) -> set[str]:
    """Distributions that `pip install "enginewright[extras]"` brings, as far as they are installed here."""
    found: dict[str, set[str]] = {}
    waiting = [Requirement(f"{OURS}[{','.join(extras)}]")]
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        if name in found and found[name] >= asked.extras:
            continue
        found[name] = found.get(name, set()) | asked.extras
        for line in _needs(name, found[name]):
            needed = Requirement(line)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *found[name])):
                waiting.append(needed)
    return set(found)


def _needs(name: str, extras: Iterable[str]) -> Sequence[str]:
    if name == OURS:  # as the file says now: what is installed in place may have been described by an older one
        project = tomllib.loads(PROJECT.read_text())["project"]
        return project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


class Absent(importlib.abc.MetaPathFinder):
    """Finds nothing of the packages that are not installed."""

    def __init__(self, installed: set[str]) -> None:
        self._absent = {
            module
            for module, owners in packages_distributions().items()
            if not installed & {canonicalize_name(owner) for owner in owners}
        }
        for name in [name for name in sys.modules if self._is_absent(name)]:
            del sys.modules[name]  # what this file needed itself

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None leaves the module to the finders after this one."""
        if self._is_absent(fullname):
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None

    def _is_absent(self, module: str) -> bool:
        return module.partition(".")[0] in self._absent


if __name__ == "__main__":
    sys.meta_path.insert(0, Absent(closure(sys.argv[1].split(","))))
    sys.argv = [OURS, *sys.argv[2:]]
    from enginewright_cli.main import main

    main()
