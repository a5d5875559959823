"""Snapshots to plan on, without any cluster."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_operator.core.draft import Draft
from enginewright_operator.core.settings import OperatorSettings
from enginewright_operator.core.snapshot import ModelSnapshot
from tests.scenarios.models import accelerator_class, model, settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def snapshot(
    spec: dict[str, Any] | None = None,
    *,
    classes: tuple[dict[str, Any], ...] | None = None,
    operator_settings: OperatorSettings | None = None,
    **rest: Any,
) -> ModelSnapshot:
    """A model `search` with uid `uid-1`, on class `cpu` unless told otherwise."""
    manifest = model(**(spec or {}))
    manifest["metadata"] |= {"uid": "uid-1", "generation": 1}
    parsed = [AcceleratorClass.of(item) for item in (classes if classes is not None else (accelerator_class(),))]
    return ModelSnapshot(
        manifest=manifest,
        settings=operator_settings or settings(),
        classes={item.metadata.name: item for item in parsed},
        **rest,
    )


def drafted(found: ModelSnapshot, *policies: Callable[[Draft], Draft]) -> Draft:
    """What a part of the chain decides."""
    draft = Draft(found, NOW)
    for policy in policies:
        draft = policy(draft)
    return draft
