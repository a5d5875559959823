"""One readable file a rendering; `pytest tests/unit/builder/nvidia --snapshot-update` renews them."""

from __future__ import annotations

import json
from typing import Any

import yaml
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode


class _Lines(yaml.SafeDumper):
    """Texts of several lines stay readable."""


_Lines.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


class GoldenYaml(SingleFileSnapshotExtension):
    """Keys in the order in which they are rendered."""

    _write_mode = WriteMode.TEXT
    file_extension = "yaml"

    def serialize(self, data: Any, **_: Any) -> str:
        """YAML."""
        return yaml.dump(json.loads(json.dumps(data)), Dumper=_Lines, sort_keys=False, width=120)
