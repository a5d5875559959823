"""Environment, arguments and paths of a local process, from a container's spec. Pure.

Kubernetes' rules for `$(NAME)`, plus two of local mode: a named port's variable gives the port it really has, and a
path below a mount path becomes one below the folder that stands in for the volume.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..port import InvalidError, Object
from .names import NODE_ADDRESS, NODE_NAME
from .quantities import quantity

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")

Source = Callable[[str, str], Mapping[str, str] | None]
"""(ConfigMap or Secret, name) → its decoded text entries, None when it does not exist."""


@dataclass(frozen=True, slots=True)
class Mounts:
    """Folders that stand in for mount paths."""

    folders: Mapping[str, str] = field(default_factory=dict)

    def rewritten(self, text: str) -> str:
        """A path below a mount path as it is on this machine; also after `file://` and after `--flag=`."""
        for prefix in ("", "file://"):
            if text.startswith(prefix + "/"):
                return prefix + self._path(text.removeprefix(prefix))
        flag, equals, rest = text.partition("=")
        if equals and flag.startswith("-") and rest.startswith(("/", "file://")):
            return f"{flag}={self.rewritten(rest)}"
        return text

    def _path(self, path: str) -> str:
        for mount in sorted(self.folders, key=len, reverse=True):
            root = mount.rstrip("/")
            if path.rstrip("/") == root or path.startswith(root + "/"):
                return self.folders[mount] + path[len(root) :]
        return path


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` replaced, `$$` as `$`; an unknown name stays as written."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else variables.get(name, match.group(0))

    return _REFERENCE.sub(replace, text)


def port_variable(name: str) -> str:
    """`grpc-web` → `GRPC_WEB_PORT`."""
    return name.upper().replace("-", "_") + "_PORT"


def environment(
    container: Mapping[str, Any], pod: Object, *, ports: Mapping[str, int], mounts: Mounts, source: Source
) -> dict[str, str]:
    """The container's own variables. InvalidError names the one that cannot be resolved."""
    found: dict[str, str] = {}
    for entry in container.get("envFrom") or ():
        found.update(_imported(entry, source))
    given = {port_variable(name): str(port) for name, port in ports.items()}
    for entry in container.get("env") or ():
        name = str(entry["name"])
        if name in given:
            found[name] = given[name]
        elif "valueFrom" in entry:
            value = _referred(entry["valueFrom"], container, pod, source, f"env {name}")
            if value is not None:
                found[name] = value
        else:
            found[name] = expanded(mounts.rewritten(str(entry.get("value", ""))), found | given)
    return found | given


def arguments(container: Mapping[str, Any], variables: Mapping[str, str], mounts: Mounts) -> list[str]:
    """command and args as one argument list. InvalidError without a command: images are not used here."""
    command = [*(container.get("command") or ()), *(container.get("args") or ())]
    if not container.get("command"):
        raise InvalidError(
            "CreateContainerConfigError",
            f"container {container['name']}: command: is required on a local node, which does not run images",
        )
    return [expanded(mounts.rewritten(str(word)), variables) for word in command]


def check_supported(container: Mapping[str, Any], *, init: bool) -> None:
    """InvalidError for what a local node would otherwise leave undone in silence."""
    lifecycle = container.get("lifecycle") or {}
    hook = lifecycle.get("preStop") or {}
    refused = {
        "restartPolicy of an init container": init and container.get("restartPolicy") is not None,
        "lifecycle.postStart": "postStart" in lifecycle,
        "lifecycle.preStop other than sleep and exec": bool(hook) and not {"sleep", "exec"} & hook.keys(),
    }
    for what, present in refused.items():
        if present:
            raise _missing(f"container {container['name']}: {what} is not supported on a local node")


def _imported(entry: Mapping[str, Any], source: Source) -> dict[str, str]:
    kind, key = ("ConfigMap", "configMapRef") if "configMapRef" in entry else ("Secret", "secretRef")
    values = source(kind, entry[key]["name"])
    if values is None:
        if entry[key].get("optional"):
            return {}
        raise _missing(f"{kind} {entry[key]['name']} does not exist (envFrom)")
    return {entry.get("prefix", "") + name: value for name, value in values.items()}


def _referred(
    reference: Mapping[str, Any], container: Mapping[str, Any], pod: Object, source: Source, where: str
) -> str | None:
    if "fieldRef" in reference:
        return _field(str(reference["fieldRef"]["fieldPath"]), pod, where)
    if "resourceFieldRef" in reference:
        return _resource(reference["resourceFieldRef"], container, where)
    kind, key = ("ConfigMap", "configMapKeyRef") if "configMapKeyRef" in reference else ("Secret", "secretKeyRef")
    if key not in reference:
        raise _missing(f"{where}: {', '.join(reference)} is not supported on a local node")
    wanted = reference[key]
    values = source(kind, wanted["name"]) or {}
    if wanted["key"] in values:
        return values[wanted["key"]]
    if wanted.get("optional"):
        return None
    raise _missing(f"{where}: {kind} {wanted['name']} has no key {wanted['key']!r}")


def _field(path: str, pod: Object, where: str) -> str:
    metadata = pod["metadata"]
    plain = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": NODE_NAME,
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.podIP": NODE_ADDRESS,
        "status.podIPs": NODE_ADDRESS,
        "status.hostIP": NODE_ADDRESS,
    }
    if path in plain:
        return str(plain[path])
    match = _SUBSCRIPT.fullmatch(path)
    if match is None:
        raise _missing(f"{where}: fieldPath {path!r} is not supported")
    return str((metadata.get(match.group(1)) or {}).get(match.group(2), ""))


def _resource(reference: Mapping[str, Any], container: Mapping[str, Any], where: str) -> str:
    """Bytes, or whole cores rounded up, divided by the divisor."""
    bucket, _, name = str(reference["resource"]).partition(".")
    amount = ((container.get("resources") or {}).get(bucket) or {}).get(name)
    if amount is None:
        raise _missing(f"{where}: the container has no resources.{bucket}.{name}")
    divisor = quantity(reference.get("divisor") or "1", where) or 1.0
    return str(-int(-quantity(amount, where) // divisor))


def decoded_secret(data: Mapping[str, str] | None, text: Mapping[str, str] | None) -> dict[str, bytes]:
    """Entries of a Secret: base64 in `data`, plain in `stringData`. InvalidError names a damaged key."""
    found: dict[str, bytes] = {}
    for key, value in (data or {}).items():
        try:
            found[key] = base64.b64decode(value, validate=True)
        except binascii.Error:
            raise InvalidError("Invalid", f"Secret: data.{key}: is not base64; use stringData for plain text") from None
    return found | {key: value.encode() for key, value in (text or {}).items()}


def _missing(message: str) -> InvalidError:
    return InvalidError("CreateContainerConfigError", message)
