"""Fixtures every tier may use."""

from __future__ import annotations

pytest_plugins = ["tests.kube.fixtures"]
