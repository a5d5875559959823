"""Base of every type that crosses a border: camelCase in YAML and JSON, snake_case in Python, unknown keys refused."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict

# Initialisms that stay in capitals inside field names, as api conventions want (`openAI`, `memoryGiB`).
_SPECIAL = {"gib": "GiB", "trtllm": "TRTLLM"}


def camel(name: str) -> str:
    """`max_queue_delay_microseconds` -> `maxQueueDelayMicroseconds`; `memory_gib` -> `memoryGiB`."""
    head, *rest = re.split(r"_", name)
    return head + "".join(_SPECIAL.get(word, word[:1].upper() + word[1:]) for word in rest)


class ApiModel(BaseModel):
    """Strict, immutable, camelCase on the wire."""

    model_config = ConfigDict(
        alias_generator=camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_enum_values=False,
        ser_json_inf_nan="null",
    )

    def wire(self) -> dict[str, Any]:
        """The JSON object as it stands in YAML: aliases, no unset optional fields, enums as strings."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
