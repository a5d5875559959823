"""`init`: a model.yaml from a few answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from enginewright_api.errors import DeterministicError
from enginewright_api.meta import API_VERSION
from enginewright_api.recipe import Task
from enginewright_api.short_source import source_block
from enginewright_api.validation import problems
from enginewright_cli.output import console


def init(
    name: Annotated[str | None, typer.Option("--name", help="Name of the model.")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source", help="hf:ORG/NAME@COMMIT, s3://BUCKET/PATH, file:///FOLDER or package:NAME==VERSION[/PATH]."
        ),
    ] = None,
    task: Annotated[Task | None, typer.Option("--task", help="What the model does.")] = None,
    accelerator_class: Annotated[
        list[str] | None, typer.Option("--class", help="Accelerator class; may be repeated.")
    ] = None,
    output: Annotated[Path, typer.Option("--output-file", help="File to write; `-` is standard output.")] = Path(
        "model.yaml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a model.yaml, by asking for what no option gives."""
    asks = sys.stdin.isatty()
    name = name or _ask("--name", "Name", "my-model", asks)
    source = source or _ask("--source", "Source (hf:ORG/NAME@COMMIT, s3://..., package:NAME==VERSION)", None, asks)
    task = task or Task(_ask("--task", f"Task ({', '.join(task.value for task in Task)})", Task.EMBEDDING.value, asks))
    manifest: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "OptimizedModel",
        "metadata": {"name": name},
        "spec": {
            "source": parse_source(source),
            "task": task.value,
            "optimization": {"quantization": {"format": "INT8"}, "fallbacks": [{"quantization": {"format": "None"}}]},
            "quality": {"maxDrop": 0.01},
            "hardware": {"acceleratorClasses": accelerator_class or ["cpu"]},
        },
    }
    wrong = problems(manifest)
    if wrong:
        raise DeterministicError("Invalid", "; ".join(wrong))
    text = yaml.safe_dump(manifest, sort_keys=False)
    if str(output) == "-":
        print(text, end="")
        return
    if output.exists() and not force:
        raise DeterministicError("FileExists", f"{output}: exists already; --force replaces it")
    output.write_text(text)
    console.print(f"{output} written; next: enginewright plan -f {output}", markup=False)


def parse_source(text: str) -> dict[str, Any]:
    """A `source` block from its short form; DeterministicError for any other text."""
    block = source_block(text)
    if block is not None:
        return block
    raise DeterministicError(
        "InvalidSource",
        f"--source {text!r}: write hf:ORG/NAME@COMMIT, s3://BUCKET/PATH, file:///FOLDER or package:NAME==VERSION/PATH",
    )


def _ask(option: str, question: str, default: str | None, asks: bool) -> str:
    if not asks:
        raise DeterministicError("Usage", f"{option} is needed when there is nobody to ask")
    return str(typer.prompt(question, default=default))
