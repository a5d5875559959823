"""Folders a build reads from and writes to. Everything else it touches is in the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Places:
    """Local folders of one build."""

    workdir: Path
    datasets: Path
    """ConfigMaps with rows are mounted here: <name>/<key>."""
    volumes: Path
    """PersistentVolumeClaims are mounted here: <claimName>."""
    tokens: Path
    """Hub tokens are mounted here: <secret name>/<key>."""

    @property
    def scratch(self) -> Path:
        """Files of this run only."""
        return self.workdir / "scratch"

    @property
    def stages(self) -> Path:
        """Finished stages, by key."""
        return self.workdir / "stages"
