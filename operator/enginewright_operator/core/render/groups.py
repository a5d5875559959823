"""What serves one engine whose replica spans nodes: a LeaderWorkerSet, one group of pods a replica.

The leader is the server of any engine: it has the ports, the probes and the drain, and the Service selects it alone. It
starts the ranks on all nodes of its group by mpirun, which reaches the workers by ssh. Keys come from a Secret that
both mount: the same pair proves who calls and who is called. Group sizes, restarts and host names are those of
LeaderWorkerSet v1 (sigs.k8s.io/lws): a headless Service named as the set, pods <set>-<group> and <set>-<group>-<n>.
"""

from __future__ import annotations

from enginewright_api.accelerator_class import AcceleratorClass
from enginewright_api.names import LABEL_RANKS, child_labels, deployment_name
from enginewright_api.optimized_model import OptimizedModelSpec

from ..effects import Object
from ..snapshot import ModelSnapshot
from ..spread import Spread
from .pods import Volumes, secret_files, variable
from .serving import Engine, metadata_of, server_pod

WORKER = "worker"
"""Component label of pods that hold ranks and take no requests."""
RANK_PORT = 2222
KEY_FOLDER = "/etc/enginewright/ranks"
_START_SECONDS = 300


def leader_worker_set(
    snapshot: ModelSnapshot,
    spec: OptimizedModelSpec,
    engine: Engine,
    accelerator: AcceleratorClass,
    spread: Spread,
    *,
    replicas: int,
) -> Object:
    """The LeaderWorkerSet of one engine: `replicas` groups of `spread.nodes` pods."""
    metadata = metadata_of(snapshot, engine)
    pod = server_pod(snapshot, spec, engine, accelerator, accelerators=spread.accelerators)
    pod["volumes"] = [*pod["volumes"], *_key(snapshot).volumes]
    worker_labels = child_labels(
        name=snapshot.name, component=WORKER, model=snapshot.name, key=engine.key, artifact=engine.digest
    )
    (server,) = pod["containers"]
    hosts = _hosts(deployment_name(snapshot.name, engine.digest), spread.nodes)
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "leaderWorkerTemplate": {
                "size": spread.nodes,
                # Ranks that lost one of them never answer again.
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": {
                    "metadata": {"labels": {**metadata["labels"], LABEL_RANKS: "true"}},
                    "spec": {**pod, "containers": [_leader(snapshot, server, hosts, spread)]},
                },
                "workerTemplate": {
                    "metadata": {"labels": {**worker_labels, LABEL_RANKS: "true"}},
                    "spec": {**pod, "containers": [_worker(snapshot, server)]},
                },
            },
            "networkConfig": {"subdomainPolicy": "Shared"},
            # The leader waits for its workers, so they must not wait for it.
            "startupPolicy": "LeaderCreated",
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {
                    "maxSurge": spec.rollout.max_surge,
                    "maxUnavailable": 0 if spec.rollout.max_surge else 1,
                },
            },
        },
    }


def _hosts(name: str, nodes: int) -> str:
    """Host names of a group as its leader knows them, itself first; its own name says which group it is."""
    return ",".join(["$(POD_NAME)." + name, *(f"$(POD_NAME)-{number}.{name}" for number in range(1, nodes))])


def _leader(snapshot: ModelSnapshot, server: Object, hosts: str, spread: Spread) -> Object:
    launch = [
        "--hosts", "$(GROUP_HOSTS)", "--ranks-per-host", str(spread.accelerators), "--rank-port", "$(RANK_PORT)",
        "--rank-key", "$(RANK_KEY)",
    ]  # fmt: skip
    own_name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    return {
        **server,
        "args": [*server["args"], *launch],
        "env": [own_name, variable("GROUP_HOSTS", hosts), *server["env"], *_environment()],
        "volumeMounts": [*server["volumeMounts"], *_key(snapshot).mounts],
    }


def _worker(snapshot: ModelSnapshot, server: Object) -> Object:
    kept = ("image", "imagePullPolicy", "command", "resources", "securityContext", "terminationMessagePolicy")
    return {
        "name": "worker",
        **{key: server[key] for key in kept},
        "args": ["hold-ranks", "--rank-port", "$(RANK_PORT)", "--rank-key", "$(RANK_KEY)"],
        "env": [*(item for item in server["env"] if item["name"] in _WORKER_VARIABLES), *_environment()],
        "ports": [{"name": "ranks", "containerPort": RANK_PORT, "protocol": "TCP"}],
        "startupProbe": _probe(period_seconds=1, failure_threshold=_START_SECONDS),
        "readinessProbe": _probe(period_seconds=2, failure_threshold=2),
        "livenessProbe": _probe(period_seconds=5, failure_threshold=6),
        "volumeMounts": [*server["volumeMounts"], *_key(snapshot).mounts],
    }


_WORKER_VARIABLES = ("MODEL_DIR", "TERMINATION_MESSAGE_PATH")


def _environment() -> list[Object]:
    return [variable("RANK_PORT", str(RANK_PORT)), variable("RANK_KEY", f"{KEY_FOLDER}/ssh-privatekey")]


def _key(snapshot: ModelSnapshot) -> Volumes:
    return secret_files("ranks", snapshot.settings.rank_key_secret, KEY_FOLDER)


def _probe(*, period_seconds: int, failure_threshold: int) -> Object:
    return {
        "tcpSocket": {"port": "ranks"},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failure_threshold,
    }
