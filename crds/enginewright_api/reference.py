"""The API reference from the types: `python -m enginewright_api.reference FILE` writes Markdown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from enginewright_api.crd import Schema, definitions
from enginewright_api.rules import EXTENSION

_INTRODUCTION = """# API reference

Generated from the types by `make generate`; group `enginewright.io`, version `v1alpha1`.
A field in **bold** is required. Rules are checked by the API server and by `enginewright validate` alike.
"""


def reference() -> str:
    """Markdown of all resources: every field with type, default and description, and the rules."""
    parts = [_INTRODUCTION]
    for definition in definitions():
        names, version = definition["spec"]["names"], definition["spec"]["versions"][0]
        schema = version["schema"]["openAPIV3Schema"]
        parts.append(
            f"\n## {names['kind']}\n\nShort name `{names['shortNames'][0]}`, {definition['spec']['scope'].lower()}.\n"
        )
        for section in ("spec", "status"):
            node = schema["properties"][section]
            parts.append(f"\n### {names['kind']} {section}\n\n| field | type | default | |\n|---|---|---|---|\n")
            parts.extend(_rows(node, ""))
            rules = list(_rules(node, section))
            if section == "spec" and rules:
                parts.append("\nRules:\n\n" + "".join(f"- `{path}`: {message}\n" for path, message in rules))
    return "".join(parts)


def _rows(node: Schema, prefix: str) -> Iterator[str]:
    required = set(node.get("required", ()))
    for name, child in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        shown = f"**`{path}`**" if name in required else f"`{path}`"
        default = child.get("default", "")
        if isinstance(default, dict | list):
            default = ""
        text = child.get("description", "").replace("|", "\\|")
        yield f"| {shown} | {_type(child)} | {f'`{default}`' if default != '' else ''} | {text} |\n"
        yield from _rows(child, f"{path}.")
        if child.get("type") == "array":
            yield from _rows(child["items"], f"{path}[].")


def _type(node: Schema) -> str:
    if node.get("type") == "array":
        return f"list of {_type(node['items'])}"
    if "enum" in node:
        return " \\| ".join(str(value) for value in node["enum"])
    if node.get("type") == "object" and "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'])}"
    low = f"{'>' if node.get('exclusiveMinimum') else '≥'} {node['minimum']:g}" if "minimum" in node else ""
    high = f"{'<' if node.get('exclusiveMaximum') else '≤'} {node['maximum']:g}" if "maximum" in node else ""
    bounds = ", ".join(bound for bound in (low, high) if bound)
    return f"{node.get('type', 'any')}{f' ({bounds})' if bounds else ''}"


def _rules(node: Schema, path: str) -> Iterator[tuple[str, str]]:
    for rule in node.get(EXTENSION, ()):
        yield path, rule["message"]
    for name, child in node.get("properties", {}).items():
        yield from _rules(child, f"{path}.{name}")
    if node.get("type") == "array":
        yield from _rules(node["items"], f"{path}[]")


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/api.md")
    target.write_text(reference())
    sys.stdout.write(f"{target} {target.stat().st_size}\n")
