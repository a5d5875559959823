"""A real Kubernetes for tests: booted on this machine, or found through a kubeconfig."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import IO, Any, Final, Literal

from tests.kube import scripts
from tests.kube.scripts import Part

Server = Literal["etcd", "apiserver", "kcm", "scheduler", "kwok", "containerd", "kubelet", "proxy", "registry"]
Completed = subprocess.CompletedProcess[str]

H100_LABELS: Final = {
    "nvidia.com/gpu.present": "true",
    "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
    "nvidia.com/gpu.memory": "81559",
    "nvidia.com/gpu.family": "hopper",
    "nvidia.com/gpu.compute.major": "9",
    "nvidia.com/gpu.compute.minor": "0",
}
"""What NVIDIA's feature discovery writes on a node of H100 GPUs."""

GPU_TAINT: Final = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


class CommandFailed(AssertionError):  # noqa: N818 - reads as what happened
    """A command against the cluster failed; the message holds what it printed."""


def _is_established(definition: Mapping[str, Any]) -> bool:
    conditions = definition.get("status", {}).get("conditions") or []
    return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up, and the commands to work with it."""

    kubeconfig: Path
    scratch: Path
    """Where kubectl and helm keep their caches, away from the user's own."""
    programs: Path | None = None
    """The folder of kubectl and helm; None takes those on PATH."""
    busybox: str = "busybox:1.37"
    """An image with a shell that the cluster's real nodes have or can pull."""

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> Completed:
        """Run kubectl. With `check`, a failure raises `CommandFailed`; `timeout` is in seconds."""
        return self._run(self._program("kubectl"), *arguments, stdin=stdin, check=check, timeout=timeout)

    def helm(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 300) -> Completed:
        """Run helm, likewise."""
        return self._run(self._program("helm"), *arguments, stdin=stdin, check=check, timeout=timeout)

    def apply(self, *manifests: Mapping[str, object], namespace: str = "default") -> None:
        """Create or update objects by server-side apply."""
        stdin = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        self.kubectl(
            "apply", "--server-side", "--force-conflicts", f"--namespace={namespace}", "--filename=-", stdin=stdin
        )

    def install_crds(self, definitions: Sequence[Mapping[str, Any]], *, timeout: float = 60) -> None:
        """Apply CustomResourceDefinitions and return when all are served; `timeout` is in seconds.

        Polled here: `kubectl wait` fails on an object that has no conditions yet.
        """
        self.apply(*definitions)
        names = [f"crd/{definition['metadata']['name']}" for definition in definitions]
        end = time.monotonic() + timeout
        while True:
            found = json.loads(self.kubectl("get", *names, "--output=json").stdout)
            items = found.get("items", [found])
            if all(_is_established(item) for item in items):
                return
            if time.monotonic() > end:
                raise CommandFailed(f"not established after {timeout:g} s: {', '.join(names)}")
            time.sleep(0.1)

    @contextlib.contextmanager
    def namespace(self, prefix: str = "test") -> Iterator[str]:
        """A fresh namespace, whose deletion begins at the end and is not waited for."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.kubectl("create", "namespace", name)
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false", check=False)

    @contextlib.contextmanager
    def fake_gpu_nodes(
        self,
        count: int,
        *,
        gpus: int = 8,
        labels: Mapping[str, str] | None = None,
        taints: Collection[Mapping[str, str]] = (GPU_TAINT,),
    ) -> Iterator[list[str]]:
        """Nodes played by kwok, Ready, each with `gpus` of `nvidia.com/gpu`; their names. Gone at the end.

        They carry the labels and the taint of real H100 nodes, and `labels` adds to these or overrides them.
        The cluster is shared: a test that counts on its own nodes' capacity gives them a label of its own to select.
        """
        group = secrets.token_hex(4)
        names = [f"gpu-{group}-{index}" for index in range(count)]
        own = {"nvidia.com/gpu.count": str(gpus), "fake-nodes": group, "kwok": "yes"}
        common = H100_LABELS | own | dict(labels or {})
        resources = {"cpu": "192", "memory": "2Ti", "pods": "250", "nvidia.com/gpu": str(gpus)}
        nodes = (
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": common | {"kubernetes.io/hostname": name}},
                "spec": {"taints": list(taints)},
                "status": {"capacity": resources, "allocatable": resources},
            }
            for name in names
        )
        try:
            self.apply(*nodes)
            self.kubectl("wait", "--for=condition=Ready", "nodes", f"--selector=fake-nodes={group}", "--timeout=60s")
            yield names
        finally:
            self._remove_pods_of(names)
            self.kubectl("delete", "nodes", f"--selector=fake-nodes={group}", check=False)

    def _remove_pods_of(self, nodes: Collection[str]) -> None:
        """Remove pods before their fake nodes go: without a node nothing would finish their deletion."""
        listed = self.kubectl("get", "pods", "--all-namespaces", "--output=json", check=False).stdout
        doomed: dict[str, list[str]] = defaultdict(list)
        for pod in json.loads(listed or '{"items": []}')["items"]:
            if pod["spec"].get("nodeName") in nodes:
                doomed[pod["metadata"]["namespace"]].append(pod["metadata"]["name"])
        for namespace, pods in doomed.items():
            force = ("--force", "--grace-period=0", "--ignore-not-found")
            self.kubectl("delete", "pods", f"--namespace={namespace}", *force, *pods, check=False)

    def _program(self, name: str) -> str:
        return name if self.programs is None else str(self.programs / name)

    def _run(self, *command: str, stdin: str | None, check: bool, timeout: float) -> Completed:
        environment = os.environ | {
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self.scratch / "kube"),
            "HELM_CACHE_HOME": str(self.scratch / "helm-cache"),
            "HELM_CONFIG_HOME": str(self.scratch / "helm-config"),
            "HELM_DATA_HOME": str(self.scratch / "helm-data"),
        }
        done = subprocess.run(
            command, input=stdin, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode != 0:
            raise CommandFailed(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done


@dataclass(frozen=True)
class OwnCluster(Cluster):
    """A cluster that `up.sh` booted here: its servers, network and images are within reach too."""

    number: int = 0
    registry: str = "127.0.0.1:5000"
    """Where pods pull from, and what `inside` pushes to (plain HTTP), once the part `registry` is up."""

    @property
    def folder(self) -> Path:
        """The cluster's state; its logs are in `log/`."""
        return self.kubeconfig.parent

    @property
    def host_address(self) -> str:
        """The address at which pods and API server reach a server that a test runs on this machine."""
        return f"198.51.100.{4 * self.number + 1}" if os.geteuid() == 0 else "127.0.0.1"

    @property
    def audit_log(self) -> Path:
        """One JSON object per line for each request that a service account made."""
        return self.folder / "log" / "audit.log"

    def inside(self, *command: str, check: bool = True, timeout: float = 300) -> Completed:
        """Run a command in the cluster's network namespace, where the registry listens."""
        enter = ("nsenter", f"--net=/run/netns/ewkube{self.number}")
        return self._run(*enter, *command, stdin=None, check=check, timeout=timeout)

    def load_image(self, archive: Path) -> None:
        """Give the real node an image from a docker- or OCI-archive, with no registry in between."""
        ctr = ("ctr", f"--address={self.folder}/cd/containerd.sock", "--namespace=k8s.io")
        self._run(*ctr, "images", "import", str(archive), stdin=None, check=True, timeout=300)

    def signal(self, server: Server, number: Signals) -> None:
        """Kill, freeze (SIGSTOP) or thaw (SIGCONT) one server; `start` brings a dead one back.

        For private clusters: others may be using the shared one.
        """
        pid = int((self.folder / "run" / f"{server}.pid").read_text())
        if f"{self.folder}/".encode() not in Path(f"/proc/{pid}/cmdline").read_bytes():
            raise ProcessLookupError(f"{server} is not running")
        os.kill(pid, number)

    def start(self, *parts: Part) -> None:
        """Boot further parts, or those servers of these parts that died."""
        scripts.boot(*parts, number=self.number)


@contextlib.contextmanager
def shared_cluster(*parts: Part, keep_logs: Callable[[], bool] = lambda: False) -> Iterator[OwnCluster]:
    """Join the machine's shared cluster, booting it if need be; the last one to leave takes it down.

    Each user holds a shared lock, so the test sessions of a machine, and the workers of one session, use one
    cluster, and a session that was killed holds nothing up. A cluster that a person started with `up.sh` stays.
    """
    with _users_file(0) as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with _cluster(0, users, parts, keep_logs) as cluster:
            yield cluster


@contextlib.contextmanager
def private_cluster(*parts: Part, keep_logs: Callable[[], bool] = lambda: False) -> Iterator[OwnCluster]:
    """Boot a cluster that nobody else uses, so its servers may be killed. It cannot have a real node."""
    for number in range(1, 10):
        with _users_file(number) as users:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            with _cluster(number, users, parts, keep_logs) as cluster:
                yield cluster
            return
    raise scripts.Unavailable("all nine private clusters of this machine are in use")


def _users_file(number: int) -> IO[str]:
    home = scripts.home()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return (home / f"{number}.users").open("w")


@contextlib.contextmanager
def _cluster(
    number: int, users: IO[str], parts: tuple[Part, ...], keep_logs: Callable[[], bool]
) -> Iterator[OwnCluster]:
    try:
        kubeconfig = scripts.boot(*parts, number=number)
        with tempfile.TemporaryDirectory(prefix="enginewright-kube-") as scratch:
            yield OwnCluster(
                kubeconfig=kubeconfig,
                scratch=Path(scratch),
                programs=(kubeconfig.parent / "bin").resolve(),
                busybox="kube.local/busybox:1",
                number=number,
            )
    finally:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # somebody else is using it still
        else:
            if not (scripts.home() / str(number) / "keep").exists():
                scripts.take_down(number=number, keep_logs=keep_logs())
