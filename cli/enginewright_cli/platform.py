"""An installed platform, as `helm template` or `kubectl get --output yaml` prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from enginewright_api.errors import DeterministicError
from enginewright_cli.documents import Document, read_documents
from enginewright_operator.command_line import settings_of
from enginewright_operator.core.settings import OperatorSettings

_PROGRAM = ["enginewright-operator", "run"]


@dataclass(frozen=True, slots=True)
class Platform:
    """What a cluster's operator would decide by."""

    settings: OperatorSettings
    classes: tuple[Document, ...]


def read_platform(source: str) -> Platform:
    """From a file (`-` is standard input) or folder that holds, among others, the operator's Deployment."""
    documents = read_documents(source)
    operators = [
        (container, line[len(_PROGRAM) :])
        for document in documents
        if document.get("kind") == "Deployment"
        for container in _containers(document)
        if (line := [*(container.get("command") or ()), *(container.get("args") or ())])[: len(_PROGRAM)] == _PROGRAM
    ]
    if len(operators) != 1:
        raise DeterministicError(
            "NoOperator" if not operators else "SeveralOperators",
            f"{source}: holds {len(operators)} Deployments that run {_PROGRAM[0]}, needed is one; `helm template`"
            " of the chart with your values prints it, or `kubectl get deployments,acceleratorclasses --output yaml`",
        )
    ((container, arguments),) = operators
    environment = {item["name"]: item["value"] for item in container.get("env") or () if "value" in item}
    classes = tuple(document for document in documents if document.get("kind") == "AcceleratorClass")
    return Platform(settings_of(arguments, environment), classes)


def _containers(deployment: Document) -> list[dict[str, Any]]:
    found: Any = deployment
    for step in ("spec", "template", "spec", "containers"):
        found = found.get(step) if isinstance(found, dict) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
