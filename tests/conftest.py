"""Fixtures every tier may use."""

from __future__ import annotations

import hypothesis

pytest_plugins = ["tests.kube.fixtures", "tests.s3.fixtures", "tests.serving.engines", "tests.serving.servers"]

# Examples are slow on a busy machine now and then; how long one takes is no property of the code under test.
hypothesis.settings.register_profile("enginewright", deadline=None)
hypothesis.settings.load_profile("enginewright")
