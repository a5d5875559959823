"""What the parts of the agent share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..port import Cluster
from .events import Events
from .ports import PortAllocator
from .probes import Prober
from .volumes import Volumes


@dataclass(frozen=True, slots=True)
class Host:
    """This machine, as pods see it."""

    cluster: Cluster
    state_dir: Path
    run_id: str
    """Of this run of the agent: marks its processes."""
    ports: PortAllocator
    prober: Prober
    events: Events
    volumes: Volumes
    now: Callable[[], datetime]
