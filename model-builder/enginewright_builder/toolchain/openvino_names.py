"""Names of graph nodes that say nothing of what the process did before.

OpenVINO names a node without a name by its type and a counter of the whole process: a graph quantised right after its
export would be saved with other names than one whose export was found in the cache.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino

_COUNTED = re.compile(r"([A-Za-z]+)_\d+")


def canonical_names(model: openvino.Model) -> openvino.Model:
    """The model, its counted names replaced by places in topological order."""
    for place, node in enumerate(model.get_ordered_ops()):
        found = _COUNTED.fullmatch(node.get_friendly_name())
        if found is not None and found.group(1) == node.get_type_name():
            node.set_friendly_name(f"{node.get_type_name()}/{place}")
    return model
