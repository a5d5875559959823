"""Fixtures every tier may use."""

from __future__ import annotations

import os

import hypothesis

pytest_plugins = [
    "tests.kube.fixtures",
    "tests.s3.fixtures",
    "tests.serving.engines",
    "tests.serving.servers",
    "tests.written",
]

# Examples are slow on a busy machine now and then; how long one takes is no property of the code under test.
# The same examples in each run: a test says something about the change at hand. `make fuzz` looks for new ones.
hypothesis.settings.register_profile("enginewright", deadline=None, derandomize=True)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=2000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "enginewright"))
