"""Print the part of requirements.lock that some extras and groups need: `select_lock.py --uv UV --extra serving`.

uv says which packages those are for the Python that runs this, held to the lock's versions; their lines, hashes
included, are the lock's own, so an index that offers another file under the same version is refused.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_REQUIREMENT = re.compile(r"^([a-z0-9][a-z0-9._-]*)==", re.IGNORECASE)


def blocks(lock: str) -> dict[str, str]:
    """Package name to its lines in a lock file: the requirement and the hashes that continue it."""
    found: dict[str, str] = {}
    name = ""
    for line in lock.splitlines(keepends=True):
        match = _REQUIREMENT.match(line)
        if match:
            name = match[1].lower()
            found[name] = line
        elif name and line[:1].isspace():
            found[name] += line
    return found


def select(lock: str, names: Iterable[str]) -> str:
    """Those packages of the lock. LookupError when one is not in it: then the lock is stale."""
    present = blocks(lock)
    wanted = sorted(set(names))
    missing = [name for name in wanted if name not in present]
    if missing:
        raise LookupError(f"requirements.lock lacks {', '.join(missing)}; compile it again from pyproject.toml")
    return "".join(present[name] for name in wanted)


def resolved(uv: str, project: Path, arguments: Sequence[str], stdin: str) -> Iterator[str]:
    """Names of the packages that uv resolves the arguments to, within the lock's versions."""
    command = [
        uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", f"--python={sys.executable}",
        "--constraint=requirements.lock", *arguments,
    ]  # fmt: skip
    printed = subprocess.run(command, cwd=project, input=stdin, check=True, capture_output=True, text=True).stdout
    for line in printed.splitlines():
        match = _REQUIREMENT.match(line)
        if match:
            yield match[1].lower()


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uv", default="uv", help="path of uv")
    parser.add_argument("--extra", action="append", default=[], help="extra of pyproject.toml")
    parser.add_argument("--group", action="append", default=[], help="dependency group of pyproject.toml")
    parser.add_argument("--project", type=Path, default=Path(), help="folder of pyproject.toml and requirements.lock")
    parser.add_argument("--only", help="a package: it and what it needs, nothing else")
    chosen = parser.parse_args()
    arguments = ["pyproject.toml"] if chosen.only is None else ["-"]
    arguments += [f"--extra={name}" for name in chosen.extra]
    arguments += [f"--group={name}" for name in chosen.group]
    try:
        names = resolved(chosen.uv, chosen.project, arguments, chosen.only or "")
        sys.stdout.write(select((chosen.project / "requirements.lock").read_text(), names))
    except subprocess.CalledProcessError as error:
        sys.stderr.write(error.stderr)
        return 1
    except LookupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
