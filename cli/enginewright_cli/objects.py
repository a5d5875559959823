"""apply, get, describe, wait, logs, delete: the same on this machine and on a cluster."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Annotated, Any

import typer

from enginewright_api.errors import DeterministicError
from enginewright_api.names import LABEL_MODEL
from enginewright_cli.columns import cells, headers
from enginewright_cli.describing import describe_object
from enginewright_cli.documents import read_documents
from enginewright_cli.options import (
    DEFAULT_NAMESPACE,
    ContextOption,
    FileOption,
    NamespaceOption,
    OutputOption,
    StateOption,
    target,
)
from enginewright_cli.output import Format, age, condition, console, errors, print_data, print_table
from enginewright_cli.target import name_and_kind
from enginewright_cluster.port import (
    EVENT,
    POD,
    Cluster,
    Kind,
    NotFoundError,
    Ref,
    kind_of,
)

NOT_READY = 3
NameArgument = Annotated[list[str], typer.Argument(help="KIND/NAME, KIND NAME or KIND.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (apply, get, describe, wait, logs, delete):
        app.command()(command)


def apply(
    filename: FileOption,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    context: ContextOption = None,
    state: StateOption = None,
) -> None:
    """Create or change objects from a file. All are checked before the first is written."""
    from enginewright_api.validation import RESOURCES, problems

    documents = read_documents(filename)
    wrong = [
        f"{document['metadata'].get('name', '?') if isinstance(document.get('metadata'), dict) else '?'}: {problem}"
        for document in documents
        if document.get("kind") in RESOURCES
        for problem in problems(document)
    ]
    if wrong:
        raise DeterministicError("Invalid", f"{filename}: nothing was applied; " + "; ".join(wrong))
    to = target(namespace, context, state)

    async def work(cluster: Cluster) -> None:
        for document in documents:
            kind = kind_of(document)
            document.setdefault("metadata", {})
            if kind.namespaced:
                document["metadata"].setdefault("namespace", namespace)
            before = await _existing(
                cluster, Ref(kind, document["metadata"]["name"], document["metadata"].get("namespace"))
            )
            after = await cluster.apply(document, field_manager="enginewright-cli", force=True)
            verb = "created" if before is None else "unchanged" if _same(before, after) else "configured"
            console.print(f"{kind.kind.lower()}/{document['metadata']['name']} {verb}", markup=False)

    to.run(work)


async def _existing(cluster: Cluster, ref: Ref) -> dict[str, Any] | None:
    try:
        return await cluster.get(ref)
    except NotFoundError:
        return None


def _same(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return bool(before["metadata"].get("resourceVersion") == after["metadata"].get("resourceVersion"))


def get(
    what: NameArgument,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of every namespace.")] = False,
    output: OutputOption = Format.TABLE,
    context: ContextOption = None,
    state: StateOption = None,
) -> None:
    """List objects, or show one."""
    kind, name = name_and_kind(what)

    async def work(cluster: Cluster) -> Any:
        if name is not None:
            return await cluster.get(Ref(kind, name, namespace if kind.namespaced else None))
        scope = namespace if kind.namespaced and not all_namespaces else None
        return list(await cluster.list(kind, namespace=scope))

    found = target(namespace, context, state).run(work)
    if output is not Format.TABLE:
        data = found if isinstance(found, dict) else {"apiVersion": "v1", "kind": "List", "items": found}
        print_data(data, output)
        return
    items = found if isinstance(found, list) else [found]
    if not items:
        where = f" in namespace {namespace}" if kind.namespaced and not all_namespaces else ""
        errors.print(f"no {kind.plural}{where}")
        return
    columns = ["NAMESPACE"] if all_namespaces and kind.namespaced else []
    rows = []
    for item in sorted(items, key=lambda item: (item["metadata"].get("namespace", ""), item["metadata"]["name"])):
        first = [item["metadata"].get("namespace", "")] if columns else []
        rows.append([*first, item["metadata"]["name"], *cells(kind, item), age(item)])
    print_table([*columns, "NAME", *headers(kind), "AGE"], rows)


def describe(
    what: NameArgument,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    context: ContextOption = None,
    state: StateOption = None,
) -> None:
    """Everything about one object: what is wanted, how it stands, why, and what happened."""
    kind, name = name_and_kind(what)
    if name is None:
        raise DeterministicError("Usage", f"say which: enginewright describe {kind.plural}/NAME")

    async def work(cluster: Cluster) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        item = await cluster.get(Ref(kind, name, namespace if kind.namespaced else None))
        events = await cluster.list(EVENT, namespace=namespace if kind.namespaced else None)
        return item, [event for event in events if (event.get("involvedObject") or {}).get("name") == name]

    item, events = target(namespace, context, state).run(work)
    describe_object(item, events)


def wait(
    what: NameArgument,
    condition_wanted: Annotated[
        str, typer.Option("--for", help="condition=TYPE, condition=TYPE=STATUS or delete.")
    ] = "condition=Ready",
    timeout_seconds: Annotated[float, typer.Option("--timeout", help="Seconds to wait at most.")] = 300.0,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    context: ContextOption = None,
    state: StateOption = None,
) -> None:
    """Wait until a condition holds. Exit code 3 when it does not in time, 1 when it never will (Stalled)."""
    kind, name = name_and_kind(what)
    match = re.fullmatch(r"delete|condition=(?P<type>[A-Za-z]+)(=(?P<status>True|False|Unknown))?", condition_wanted)
    if name is None or match is None:
        raise DeterministicError("Usage", "wait KIND/NAME --for=condition=TYPE[=STATUS] or --for=delete")
    wanted, status = match["type"], match["status"] or "True"
    ref = Ref(kind, name, namespace if kind.namespaced else None)

    async def work(cluster: Cluster) -> int:
        end = time.monotonic() + timeout_seconds
        item: dict[str, Any] | None = None
        while True:
            item = await _existing(cluster, ref)
            if item is None and wanted is None:
                return 0
            if item is None:
                raise NotFoundError("NotFound", f"there is no {kind.kind} {name!r} in namespace {namespace!r}")
            if wanted is not None and _holds(item, wanted, status):
                console.print(f"{kind.kind.lower()}/{name} condition met")
                return 0
            stalled = condition(item, "Stalled")
            if wanted == "Ready" and status == "True" and stalled.get("status") == "True":
                errors.print(
                    f"{kind.kind.lower()}/{name} has failed: {stalled['reason']}: {stalled['message']}",
                    markup=False,
                    soft_wrap=True,
                )
                return 1
            if time.monotonic() >= end:
                now = condition(item, wanted) if wanted else {}
                why = f": {now.get('reason')}: {now.get('message')}" if now else ""
                errors.print(
                    f"{kind.kind.lower()}/{name} {wanted or 'deletion'} not reached after {timeout_seconds:g} s{why}",
                    markup=False,
                    soft_wrap=True,
                )
                return NOT_READY
            await asyncio.sleep(0.2)

    code = target(namespace, context, state).run(work)
    if code:
        raise typer.Exit(code)


def _holds(item: dict[str, Any], wanted: str, status: str) -> bool:
    entry = condition(item, wanted)
    generation = item["metadata"].get("generation", 0)
    current = entry.get("observedGeneration", generation) >= generation or wanted != "Ready"
    return entry.get("status") == status and current


def logs(
    what: NameArgument,
    tail: Annotated[int, typer.Option("--tail", help="Last lines of each pod.")] = 50,
    container: Annotated[str | None, typer.Option("--container", "-c", help="Container.")] = None,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    context: ContextOption = None,
    state: StateOption = None,
) -> None:
    """Logs of a pod, or of all pods of a model (its builds included)."""
    kind, name = name_and_kind(what)
    if name is None:
        raise DeterministicError("Usage", f"say which: enginewright logs {kind.plural}/NAME")

    async def work(cluster: Cluster) -> None:
        names = [name]
        if kind is not POD:
            pods = await cluster.list(POD, namespace=namespace)
            names = [pod["metadata"]["name"] for pod in pods if _belongs(pod, kind, name)]
            if not names:
                raise NotFoundError("NotFound", f"{kind.kind} {name!r} has no pods in namespace {namespace!r}")
        for pod_name in names:
            text = await cluster.logs(Ref(POD, pod_name, namespace), container=container, tail_lines=tail)
            for line in text.splitlines():
                console.print(f"{pod_name}: {line}" if len(names) > 1 else line, markup=False, soft_wrap=True)

    target(namespace, context, state).run(work)


def _belongs(pod: dict[str, Any], kind: Kind, name: str) -> bool:
    labels: dict[str, str] = pod["metadata"].get("labels", {})
    if kind.kind == "EngineBuild":
        return str(pod["metadata"]["name"]).startswith(name)
    return labels.get(LABEL_MODEL) == name or labels.get("app.kubernetes.io/instance") == name


def delete(
    what: Annotated[list[str] | None, typer.Argument(help="KIND/NAME or KIND NAME.", show_default=False)] = None,
    filename: Annotated[str | None, typer.Option("--filename", "-f", help="Delete the objects of a file.")] = None,
    namespace: NamespaceOption = DEFAULT_NAMESPACE,
    context: ContextOption = None,
    state: StateOption = None,
) -> None:
    """Delete objects; what they own goes with them."""
    refs: list[Ref] = []
    if filename is not None:
        for document in read_documents(filename):
            kind = kind_of(document)
            own = document["metadata"].get("namespace", namespace)
            refs.append(Ref(kind, document["metadata"]["name"], own if kind.namespaced else None))
    elif what:
        kind, name = name_and_kind(what)
        if name is None:
            raise DeterministicError("Usage", f"say which: enginewright delete {kind.plural}/NAME")
        refs.append(Ref(kind, name, namespace if kind.namespaced else None))
    else:
        raise DeterministicError("Usage", "say what: enginewright delete KIND/NAME or -f FILE")

    async def work(cluster: Cluster) -> None:
        for ref in refs:
            if await _existing(cluster, ref) is None:
                raise NotFoundError("NotFound", f"there is no {ref.kind.kind} {ref.name!r} in namespace {namespace!r}")
            await cluster.delete(ref)
            console.print(f"{ref.kind.kind.lower()}/{ref.name} deleted")

    target(namespace, context, state).run(work)
