"""How much a program tells."""

from __future__ import annotations

import logging
from enum import StrEnum


class LogLevel(StrEnum):
    """The least level that is told: values of --log-level of operator, gateway and autoscaler."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """As `logging` has it."""
        return logging.getLevelNamesMapping()[self.upper()]
