"""`describe`: one object for a person, what matters first."""

from __future__ import annotations

from typing import Any

import yaml
from rich.markup import escape

from enginewright_cli.output import condition, console, print_table

Object = dict[str, Any]


def describe_object(item: Object, events: list[Object]) -> None:
    """Print name, state and why, the ladder, figures, then events."""
    metadata, status = item["metadata"], item.get("status") or {}
    where = f" in {metadata['namespace']}" if metadata.get("namespace") else ""
    console.print(f"[bold]{item['kind']} {metadata['name']}[/bold]{where}")
    ready = condition(item, "Ready")
    if ready:
        style = {"True": "green", "False": "red"}.get(ready["status"], "yellow")
        console.print(
            f"[{style}]Ready={ready['status']}[/{style}] {ready['reason']}: {escape(ready.get('message', ''))}"
        )
    if status.get("conditions"):
        console.print()
        rows = [
            [
                entry["type"],
                entry["status"],
                entry["reason"],
                entry.get("lastTransitionTime", ""),
                entry.get("message", ""),
            ]
            for entry in status["conditions"]
        ]
        print_table(["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"], rows)
    if status.get("rungs"):
        console.print("\n[bold]Ladder[/bold]")
        print_rungs(status["rungs"])
    if status.get("stages"):
        console.print("\n[bold]Stages[/bold]")
        rows = [
            [stage["name"], stage["state"], f"{stage.get('seconds', 0):.1f} s", stage.get("message", "")]
            for stage in status["stages"]
        ]
        print_table(["STAGE", "STATE", "TIME", "MESSAGE"], rows)
    for title, key in (("Endpoints", "endpoints"), ("Scaling", "scaling"), ("Artifact", "artifact")):
        if status.get(key):
            console.print(f"\n[bold]{title}[/bold]")
            console.print(yaml.safe_dump(status[key], sort_keys=False, allow_unicode=True).rstrip(), markup=False)
    failure = status.get("lastFailure") or status.get("failure")
    if failure:
        console.print(f"\n[bold red]Last failure[/bold red] {failure.get('stage', '')} {failure['reason']}")
        console.print(failure["message"], markup=False)
        if failure.get("logTail"):
            console.print(failure["logTail"], markup=False, style="dim")
    if not status:
        console.print(yaml.safe_dump(item.get("spec", item.get("data", {})), sort_keys=False).rstrip(), markup=False)
    if events:
        console.print("\n[bold]Events[/bold]")
        events = sorted(events, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        rows = [
            [event.get("lastTimestamp") or "", event.get("type", ""), event.get("reason", ""), event.get("message", "")]
            for event in events[-20:]
        ]
        print_table(["LAST SEEN", "TYPE", "REASON", "MESSAGE"], rows)


def print_rungs(rungs: list[Object]) -> None:
    """The ladder as a table."""
    print_table(["BUILD", "FORMAT", "VERDICT", "DROP ≤", "SPEED-UP", "MESSAGE"], map(_rung, rungs))


def _rung(rung: Object) -> list[str]:
    quality = rung.get("quality") or {}
    bound = quality.get("dropUpperBound")
    speedup = rung.get("speedup")
    return [
        rung["engineBuild"],
        rung["format"],
        rung.get("verdict") or "-",
        "-" if bound is None else f"{bound:.4f}",
        "-" if speedup is None else f"{speedup:.2f}×",
        rung.get("message", ""),
    ]
