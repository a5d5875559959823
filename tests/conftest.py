"""Fixtures every tier may use."""

from __future__ import annotations

pytest_plugins = ["tests.kube.fixtures", "tests.s3.fixtures", "tests.serving.engines", "tests.serving.servers"]
