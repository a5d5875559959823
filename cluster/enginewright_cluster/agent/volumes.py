"""Volumes of a pod as folders of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enginewright_api.errors import TransientError

from ..port import CONFIG_MAP, SECRET, Cluster, InvalidError, NotFoundError, Object, Ref
from .environment import Mounts, decoded_secret

_FILE_MODE = 0o644
_SECRET_MODE = 0o600


class VolumeMissingError(TransientError):
    """A ConfigMap, Secret or folder that a volume names is not there (yet)."""


class Volumes:
    """Makes the folders of pods below `state_dir`."""

    def __init__(self, cluster: Cluster, state_dir: Path) -> None:
        self._cluster = cluster
        self._state_dir = state_dir

    def pod_folder(self, uid: str) -> Path:
        """Working directories and scratch volumes of a pod; goes with it."""
        return self._state_dir / "pods" / uid

    async def prepare(self, pod: Object) -> dict[str, Path]:
        """A folder for every volume. VolumeMissingError when something it names is not there yet."""
        return {str(volume["name"]): await self._folder(pod, volume) for volume in pod["spec"].get("volumes") or ()}

    async def _folder(self, pod: Object, volume: Mapping[str, Any]) -> Path:
        namespace, name = pod["metadata"]["namespace"], str(volume["name"])
        own = self.pod_folder(pod["metadata"]["uid"]) / "volumes" / name
        if "hostPath" in volume:
            return _host_path(volume["hostPath"], name)
        if "persistentVolumeClaim" in volume:
            own = self._state_dir / "volumes" / namespace / str(volume["persistentVolumeClaim"]["claimName"])
        elif "configMap" in volume:
            return await self._files(own, volume["configMap"], namespace, "ConfigMap", volume["configMap"]["name"])
        elif "secret" in volume:
            return await self._files(own, volume["secret"], namespace, "Secret", volume["secret"]["secretName"])
        elif "emptyDir" not in volume:
            kinds = ", ".join(key for key in volume if key != "name")
            raise InvalidError(
                "CreateContainerConfigError",
                f"volume {name}: {kinds} is not supported on a local node; emptyDir, configMap, secret, hostPath and"
                " persistentVolumeClaim are",
            )
        return _made(own)

    async def _files(self, folder: Path, spec: Mapping[str, Any], namespace: str, kind: str, source: str) -> Path:
        entries = await self.entries(kind, namespace, source)
        if entries is None:
            if not spec.get("optional"):
                raise VolumeMissingError("FailedMount", f"{kind} {namespace}/{source} does not exist")
            entries = {}
        _write_all(folder, spec, entries, source=f"{kind} {namespace}/{source}", secret=kind == "Secret")
        return folder

    async def entries(self, kind: str, namespace: str, name: str) -> dict[str, bytes] | None:
        """Content of a ConfigMap or Secret by key; None when it does not exist."""
        try:
            item = await self._cluster.get(Ref(SECRET if kind == "Secret" else CONFIG_MAP, name, namespace))
        except NotFoundError:
            return None
        if kind == "Secret":
            return decoded_secret(item.get("data"), item.get("stringData"))
        plain = {key: str(value).encode() for key, value in (item.get("data") or {}).items()}
        return plain | decoded_secret(item.get("binaryData"), None)


def mounts_of(container: Mapping[str, Any], folders: Mapping[str, Path]) -> Mounts:
    """Mount paths of a container and the folders behind them. InvalidError for a volume that is not there."""
    found = {}
    for mount in container.get("volumeMounts") or ():
        if mount["name"] not in folders:
            raise InvalidError(
                "CreateContainerConfigError",
                f"container {container['name']}: volumeMounts: there is no volume {mount['name']!r}",
            )
        folder = folders[mount["name"]]
        found[str(mount["mountPath"])] = str(folder / mount["subPath"] if mount.get("subPath") else folder)
    return Mounts(found)


def _host_path(spec: Mapping[str, Any], name: str) -> Path:
    path, kind = Path(spec["path"]), spec.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "Directory" and not path.is_dir():
        raise VolumeMissingError("FailedMount", f"volume {name}: hostPath {path} is not a folder")
    return path


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_all(
    folder: Path, spec: Mapping[str, Any], entries: Mapping[str, bytes], *, source: str, secret: bool
) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for item in spec.get("items") or [{"key": key, "path": key} for key in entries]:
        if item["key"] not in entries:
            raise VolumeMissingError("FailedMount", f"{source} has no key {item['key']!r}")
        _write(folder, str(item["path"]), entries[item["key"]], secret=secret)


def _write(folder: Path, relative: str, content: bytes, *, secret: bool) -> None:
    target = folder / relative
    if not target.resolve().is_relative_to(folder.resolve()):
        raise InvalidError("CreateContainerConfigError", f"volume item path {relative!r} leaves the volume")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_bytes() != content:
        target.unlink(missing_ok=True)
        target.touch(mode=_SECRET_MODE if secret else _FILE_MODE)
        target.write_bytes(content)
