"""The generated documents are in step with the types."""

from __future__ import annotations

from pathlib import Path

from enginewright_api.crd import CRD_LIMIT_BYTES, definitions
from enginewright_api.identity import canonical_json
from enginewright_api.reference import reference

ROOT = Path(__file__).parents[3]


def test_reference_is_current() -> None:
    assert (ROOT / "docs" / "api.md").read_text() == reference(), "run `make generate`"


def test_every_field_is_described() -> None:
    undescribed = [
        line.split("|")[1].strip()
        for line in reference().splitlines()
        if line.startswith("| ") and line.endswith("|  |")
    ]
    assert undescribed == []


def test_every_crd_stays_below_its_limit() -> None:
    for definition in definitions():
        assert len(canonical_json(definition)) < CRD_LIMIT_BYTES, definition["metadata"]["name"]
