"""The shell scripts beside this file, called from Python: build, boot, take down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

HERE: Final = Path(__file__).resolve().parent
CANNOT: Final = 3
"""Exit status of up.sh and build.sh when the machine lacks something."""

Part = Literal["control", "kwok", "node", "registry"]


class Unavailable(Exception):  # noqa: N818 - not an error: this machine cannot run a cluster
    """This machine cannot build or boot a cluster; the message says what it lacks."""


class ScriptFailed(Exception):  # noqa: N818 - reads as what happened
    """A script failed where it should have worked; the message holds the end of what it printed."""


def build() -> Path:
    """Build the cluster's programs unless the cache has them, and return their folder.

    Raises:
        Unavailable: there is no Go, or it is too old.
        ScriptFailed: the build failed.
    """
    return Path(_run("build.sh"))


def boot(*parts: Part, number: int = 0) -> Path:
    """Bring up those parts of a cluster that are not, and return the path of its kubeconfig.

    Raises:
        Unavailable: the machine lacks something, for instance root or containerd.
        ScriptFailed: a server did not come up.
    """
    return Path(_run("up.sh", "--until-unused", *parts, environment={"KUBE_NUMBER": str(number)}))


def take_down(*, number: int = 0, keep_logs: bool = False) -> None:
    """End all servers of a cluster and remove its state."""
    _run("down.sh", *(["--keep-logs"] if keep_logs else []), environment={"KUBE_NUMBER": str(number)})


def home() -> Path:
    """The folder that holds a folder for each cluster, as lib/settings.sh has it."""
    default = "/var/lib/enginewright-kube" if os.geteuid() == 0 else f"/tmp/enginewright-kube-{os.geteuid()}"
    return Path(os.environ.get("KUBE_HOME", default))


def _run(script: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a script, show its progress as it comes, and return what it printed."""
    told: deque[str] = deque(maxlen=30)
    with subprocess.Popen(
        [str(HERE / script), *arguments],
        env=os.environ | dict(environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            told.append(line)
        printed = process.stdout.read()
    if process.returncode == CANNOT:
        raise Unavailable(told[-1].strip())
    if process.returncode != 0:
        raise ScriptFailed(f"{script} {' '.join(arguments)}: exit status {process.returncode}\n{''.join(told)}")
    return printed.strip()
