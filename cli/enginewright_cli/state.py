"""Where local mode keeps its things: one folder, private to its user."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT_VARIABLE = "ENGINEWRIGHT_HOME"


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """Layout of the state folder."""

    root: Path

    @classmethod
    def default(cls) -> StateDirectory:
        """$ENGINEWRIGHT_HOME, or enginewright/ in the user's data folder (XDG)."""
        home = os.environ.get(ENVIRONMENT_VARIABLE)
        return cls(Path(home).expanduser().absolute()) if home else cls._of_user()

    @classmethod
    def _of_user(cls) -> StateDirectory:
        data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        return cls(Path(data).expanduser().absolute() / "enginewright")

    @property
    def down_command(self) -> str:
        """What stops its control plane, typed where this program was called."""
        called = Path(sys.argv[0])
        found = shutil.which(called.name) is not None or called.name != "enginewright"
        words = ["enginewright" if found else str(called), "down"]
        if self != self._of_user():
            words += ["--state-dir", str(self.root)]
        return shlex.join(words)

    @property
    def store_uri(self) -> str:
        """Artifact store of local mode."""
        return f"file://{self.root / 'store'}"

    @property
    def signing_key(self) -> Path:
        """Private key that local builds are signed with."""
        return self.root / "keys" / "signing.pem"

    @property
    def public_key(self) -> Path:
        """Its public half."""
        return self.root / "keys" / "signing.pem.pub"

    @property
    def lock(self) -> Path:
        """Held by the running control plane; holds its process id."""
        return self.root / "up.lock"

    @property
    def log(self) -> Path:
        """Log of a detached control plane."""
        return self.root / "logs" / "up.log"

    @property
    def reports(self) -> Path:
        """Pages that `build` writes."""
        return self.root / "reports"

    def prepare(self) -> None:
        """Create the folders, readable by their owner only."""
        for folder in (self.root, self.root / "store", self.root / "keys", self.root / "logs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
