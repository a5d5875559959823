"""Pods as processes: environment, volumes, init containers, ends, restarts, probes."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path

import pytest

from enginewright_cluster.port import POD, Ref
from tests.unit.cluster.conftest import NAMESPACE, Machine, alive, python, server, until


def terminated(pod: dict, index: int = 0) -> dict:
    return pod["status"]["containerStatuses"][index]["state"]["terminated"]


async def test_successful_pod_ends_with_its_message_and_log(machine: Machine) -> None:
    code = "import os; print('hello'); open(os.environ['TERMINATION_MESSAGE_PATH'], 'w').write('all done')"
    await machine.pod(python(code), restartPolicy="Never")
    pod = await machine.phase("p", "Succeeded")
    end = terminated(pod)
    assert (end["exitCode"], end["reason"], end["message"]) == (0, "Completed", "all done")
    assert end["startedAt"] <= end["finishedAt"]
    assert await machine.cluster.logs(Ref(POD, "p", NAMESPACE)) == "hello\n"


@pytest.mark.parametrize(
    ("policy", "message"),
    [("File", None), ("FallbackToLogsOnError", "first\nlast words\n")],
)
async def test_message_falls_back_to_the_log_only_when_told_to(
    machine: Machine, policy: str, message: str | None
) -> None:
    code = "import sys; print('first'); print('last words', file=sys.stderr); sys.exit(20)"
    await machine.pod(python(code, terminationMessagePolicy=policy), restartPolicy="Never")
    end = terminated(await machine.phase("p", "Failed"))
    assert (end["exitCode"], end["reason"], end.get("message")) == (20, "Error", message)


async def test_long_message_is_cut(machine: Machine) -> None:
    code = "import os; open(os.environ['TERMINATION_MESSAGE_PATH'], 'w').write('x' * 9000)"
    await machine.pod(python(code), restartPolicy="Never")
    assert len(terminated(await machine.phase("p", "Succeeded"))["message"]) == 4096


async def test_killed_by_signal_is_128_plus_its_number(machine: Machine) -> None:
    await machine.pod(python("import os, signal; os.kill(os.getpid(), signal.SIGTERM)"), restartPolicy="Never")
    assert terminated(await machine.phase("p", "Failed"))["exitCode"] == 143


async def test_environment_volumes_and_paths_are_those_of_this_machine(machine: Machine, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    await machine.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": NAMESPACE},
            "data": {"color": "green", "size": "3"},
        }
    )
    await machine.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "keys", "namespace": NAMESPACE},
            "data": {"token": base64.b64encode(b"abc").decode()},
            "stringData": {"plain": "xyz"},
        }
    )
    code = """
import json, os, pathlib, sys
def read(name): return pathlib.Path(os.environ[name]).read_text()
pathlib.Path(os.environ["OUT"], "made").write_text("x")
pathlib.Path(os.environ["CLAIM"], "kept").write_text("k")
print(json.dumps({
    "argv": sys.argv[1:], "color": os.environ["COLOR"], "pod": os.environ["POD"], "address": os.environ["ADDRESS"],
    "token": os.environ["TOKEN"], "file": read("SIZE_FILE"), "secret": read("SECRET_FILE"),
    "SIZE": os.environ["C_size"],
    "uri": os.environ["URI"], "outside": os.environ["OUTSIDE"], "port": os.environ["GRPC_WEB_PORT"],
    "mode": oct(os.stat(os.environ["SECRET_FILE"]).st_mode & 0o777), "limit": os.environ["LIMIT"],
}))
"""

    def reference(name: str, **source: dict) -> dict:
        return {"name": name, "valueFrom": source}

    container = python(code, env={"BASE": "/models"})
    container["command"] += ["$(BASE)/a", "/models/b", "--dir=/models/c", "$(NOBODY)", "$$(BASE)"]
    container["env"] += [
        {"name": "SIZE_FILE", "value": "/etc/settings/size"},
        {"name": "SECRET_FILE", "value": "/etc/keys/plain"},
        {"name": "OUT", "value": "/out"},
        {"name": "CLAIM", "value": "/claim"},
        {"name": "URI", "value": "file:///out/store"},
        {"name": "OUTSIDE", "value": "/modelsque/x"},
        {"name": "GRPC_WEB_PORT", "value": "1"},
        reference("COLOR", configMapKeyRef={"name": "settings", "key": "color"}),
        reference("TOKEN", secretKeyRef={"name": "keys", "key": "token"}),
        reference("POD", fieldRef={"fieldPath": "metadata.name"}),
        reference("ADDRESS", fieldRef={"fieldPath": "status.podIP"}),
        reference("LIMIT", resourceFieldRef={"resource": "limits.memory", "divisor": "1Mi"}),
    ]
    container["envFrom"] = [{"prefix": "C_", "configMapRef": {"name": "settings"}}]
    container["ports"] = [{"name": "grpc-web", "containerPort": 1}]
    container["resources"] = {"limits": {"memory": "1Gi"}}
    container["volumeMounts"] = [
        {"name": "models", "mountPath": "/models"},
        {"name": "settings", "mountPath": "/etc/settings"},
        {"name": "keys", "mountPath": "/etc/keys"},
        {"name": "out", "mountPath": "/out"},
        {"name": "claim", "mountPath": "/claim"},
    ]
    volumes = [
        {"name": "models", "emptyDir": {}},
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "keys", "secret": {"secretName": "keys"}},
        {"name": "out", "hostPath": {"path": str(shared), "type": "DirectoryOrCreate"}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "disk"}},
    ]
    created = await machine.pod(container, restartPolicy="Never", volumes=volumes)
    await machine.phase("p", "Succeeded")
    said = json.loads(await machine.cluster.logs(Ref(POD, "p", NAMESPACE)))
    state = tmp_path / "state"
    models = str(state / "pods" / created["metadata"]["uid"] / "volumes" / "models")
    assert said["argv"] == [f"{models}/a", f"{models}/b", f"--dir={models}/c", "$(NOBODY)", "$(BASE)"]
    assert said["uri"] == f"file://{shared}/store"
    assert said["outside"] == "/modelsque/x"
    assert int(said["port"]) >= 20000
    expected = {"color": "green", "token": "abc", "file": "3", "secret": "xyz", "SIZE": "3", "mode": "0o600"}
    assert expected.items() <= said.items()
    assert (said["pod"], said["address"], said["limit"]) == ("p", "127.0.0.1", "1024")
    assert (shared / "made").exists()
    assert (state / "volumes" / NAMESPACE / "disk" / "kept").exists()


async def test_init_containers_run_in_order_before_the_others(machine: Machine, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    step = f"import sys; open({str(trace)!r}, 'a').write(sys.argv[1])"

    def stage(name: str) -> dict:
        container = python(step, name=name)
        container["command"].append(name)
        return container

    await machine.pod(stage("c"), initContainers=[stage("a"), stage("b")], restartPolicy="Never")
    pod = await machine.phase("p", "Succeeded")
    assert trace.read_text() == "abc"
    assert [item["state"]["terminated"]["exitCode"] for item in pod["status"]["initContainerStatuses"]] == [0, 0]


async def test_failed_init_container_keeps_the_others_from_starting(machine: Machine, tmp_path: Path) -> None:
    never = tmp_path / "never"
    main = python(f"open({str(never)!r}, 'w')")
    await machine.pod(main, initContainers=[python("exit(3)", name="first")], restartPolicy="Never")
    pod = await machine.phase("p", "Failed")
    assert pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert "waiting" in pod["status"]["containerStatuses"][0]["state"]
    assert not never.exists()


async def test_init_container_is_tried_again_in_a_pod_that_restarts(machine: Machine, tmp_path: Path) -> None:
    count = tmp_path / "count"
    flaky = f"open({str(count)!r}, 'a').write('x'); exit(len(open({str(count)!r}).read()) < 3)"
    await machine.pod(python("import time; time.sleep(60)"), initContainers=[python(flaky, name="flaky")])
    pod = await machine.phase("p", "Running")
    assert count.read_text() == "xxx"
    assert pod["status"]["initContainerStatuses"][0]["restartCount"] == 2


async def test_crash_loop_backs_off_and_says_so(machine: Machine) -> None:
    await machine.pod(python("exit(4)"))

    async def looping() -> bool:
        statuses = (await machine.status(POD, "p")).get("containerStatuses") or [{"restartCount": 0}]
        return statuses[0]["restartCount"] >= 3

    await until(looping, "three restarts")
    status = (await machine.status(POD, "p"))["containerStatuses"][0]
    waiting, last = status["state"]["waiting"], status["lastState"]["terminated"]
    assert waiting["reason"] == "CrashLoopBackOff"
    assert "back-off 2 s" in waiting["message"]
    assert last["exitCode"] == 4
    assert not status["ready"]
    assert await machine.events("BackOff")


async def test_unknown_command_says_what_to_do(machine: Machine) -> None:
    await machine.pod({"name": "c", "image": "x", "command": ["no-such-program"]}, restartPolicy="Never")
    end = terminated(await machine.phase("p", "Failed"))
    assert end["exitCode"] == 127
    assert "no-such-program" in end["message"]


async def test_console_scripts_beside_the_interpreter_come_first(machine: Machine) -> None:
    await machine.pod(
        {"name": "c", "image": "x", "command": ["python", "-c", "import sys; print(sys.executable)"]},
        restartPolicy="Never",
    )
    await machine.phase("p", "Succeeded")
    printed = (await machine.cluster.logs(Ref(POD, "p", NAMESPACE))).strip()
    assert Path(printed).parent == Path(sys.executable).parent


@pytest.mark.parametrize(
    ("container", "reason", "words"),
    [
        ({"name": "c", "image": "x"}, "CreateContainerConfigError", "command"),
        (
            python("pass") | {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k"}}}]},
            "CreateContainerConfigError",
            "Secret no has no key 'k'",
        ),
        (
            python("pass", volumeMounts=[{"name": "nope", "mountPath": "/x"}]),
            "CreateContainerConfigError",
            "no volume 'nope'",
        ),
        (python("pass", resources={"limits": {"nvidia.com/gpu": "1"}}), "FailedScheduling", "nvidia.com/gpu"),
        (python("pass", resources={"limits": {"memory": "lots"}}), "Invalid", "lots"),
        (python("pass", readinessProbe={"grpc": {"port": 1}}), "CreateContainerConfigError", "probe"),
        (python("pass", lifecycle={"postStart": {}}), "CreateContainerConfigError", "postStart"),
        (python("pass", lifecycle={"preStop": {"httpGet": {}}}), "CreateContainerConfigError", "preStop"),
    ],
    ids=["no command", "missing secret", "missing volume", "device", "quantity", "probe", "postStart", "preStop"],
)
async def test_what_cannot_start_waits_with_the_reason(
    machine: Machine, container: dict, reason: str, words: str
) -> None:
    await machine.pod(container)

    async def said() -> bool:
        status = (await machine.status(POD, "p")).get("containerStatuses") or [{"state": {}}]
        return status[0]["state"].get("waiting", {}).get("reason") == reason

    await until(said, f"waiting for {reason}")
    assert words in (await machine.status(POD, "p"))["containerStatuses"][0]["state"]["waiting"]["message"]


async def test_missing_config_map_is_waited_for(machine: Machine) -> None:
    mount = {"name": "v", "mountPath": "/v"}
    code = "import os, pathlib; print(pathlib.Path(os.environ['F']).read_text())"
    container = python(code, env={"F": "/v/a"}, volumeMounts=[mount])
    await machine.pod(container, restartPolicy="Never", volumes=[{"name": "v", "configMap": {"name": "late"}}])

    async def waits() -> bool:
        return bool(await machine.events("FailedMount"))

    await until(waits, "the missing ConfigMap is reported")
    late = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late", "namespace": NAMESPACE}}
    await machine.cluster.apply(late | {"data": {"a": "here"}})
    await machine.phase("p", "Succeeded")
    assert await machine.cluster.logs(Ref(POD, "p", NAMESPACE)) == "here\n"


async def test_memory_over_the_limit_is_killed_with_all_its_children(machine: Machine) -> None:
    hog = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytearray(200_000_000); input()'])"
    code = hog.replace("input()", "import time; time.sleep(60)")
    await machine.pod(python(code, resources={"limits": {"memory": "100Mi"}}), restartPolicy="Never")
    end = terminated(await machine.phase("p", "Failed"))
    assert (end["exitCode"], end["reason"]) == (137, "OOMKilled")


async def test_readiness_follows_the_probe(machine: Machine, tmp_path: Path) -> None:
    switch = tmp_path / "unready"
    await machine.pod(server(env={"UNREADY": str(switch)}))

    async def ready(wanted: str) -> bool:
        conditions = (await machine.status(POD, "p")).get("conditions", [])
        return any(item["type"] == "Ready" and item["status"] == wanted for item in conditions)

    await until(lambda: ready("True"), "ready")
    switch.touch()
    await until(lambda: ready("False"), "not ready")
    assert await machine.events("Unhealthy")
    switch.unlink()
    await until(lambda: ready("True"), "ready again")
    assert (await machine.status(POD, "p"))["containerStatuses"][0]["restartCount"] == 0


async def test_failed_liveness_restarts(machine: Machine, tmp_path: Path) -> None:
    switch = tmp_path / "dead"
    liveness = {"httpGet": {"path": "/alive", "port": 8000}, "periodSeconds": 1, "failureThreshold": 2}
    await machine.pod(server(env={"DEAD": str(switch)}, livenessProbe=liveness))

    async def restarts(count: int) -> bool:
        statuses = (await machine.status(POD, "p")).get("containerStatuses") or [{"restartCount": -1}]
        return statuses[0]["restartCount"] == count and statuses[0].get("ready", False)

    await until(lambda: restarts(0), "ready")
    switch.touch()

    async def killed() -> bool:
        return bool(await machine.events("Killing"))

    await until(killed, "killed")
    switch.unlink()
    await until(lambda: restarts(1), "restarted and ready")


async def test_startup_probe_gives_up_after_its_time(machine: Machine) -> None:
    probe = {"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 1}
    await machine.pod(python("import time; time.sleep(60)", startupProbe=probe))

    async def killed() -> bool:
        return any("startup" in item["message"] for item in await machine.events("Killing"))

    await until(killed, "killed by the startup probe")


async def test_command_probe(machine: Machine, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    check = {"exec": {"command": [sys.executable, "-c", f"import os; exit(not os.path.exists({str(flag)!r}))"]}}
    await machine.pod(python("import time; time.sleep(60)", readinessProbe={**check, "timeoutSeconds": 5}))
    await machine.phase("p", "Running")
    await asyncio.sleep(0.4)
    assert not (await machine.status(POD, "p"))["containerStatuses"][0]["ready"]
    flag.touch()

    async def ready() -> bool:
        return bool((await machine.status(POD, "p"))["containerStatuses"][0]["ready"])

    await until(ready, "ready")


STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: open(os.environ["TRACE"], "a").write("T"))
open(os.environ["TRACE"], "a").write(str(os.getpid()) + " ")
while True: time.sleep(0.05)
"""


async def test_deletion_asks_then_kills_then_forgets(machine: Machine, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", f"printf H >> {trace}"]}}}
    container = python(STUBBORN, env={"TRACE": str(trace)}, lifecycle=hook)
    created = await machine.pod(container, terminationGracePeriodSeconds=1)

    async def begun() -> bool:
        return trace.exists() and " " in trace.read_text()

    await until(begun, "running")
    pid = int(trace.read_text().split()[0])
    await machine.delete(POD, "p")
    await machine.gone(POD, "p")
    assert trace.read_text().split()[1] == "HT"
    assert not alive(pid)
    assert not (tmp_path / "state" / "pods" / created["metadata"]["uid"]).exists()
    assert "HT" not in await machine.cluster.logs(Ref(POD, "p", NAMESPACE))


async def test_leftover_children_go_with_their_parent(machine: Machine, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import subprocess, sys, pathlib;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        f"pathlib.Path({str(note)!r}).write_text(str(child.pid))"
    )
    await machine.pod(python(code), restartPolicy="Never")
    await machine.phase("p", "Succeeded")
    pid = int(note.read_text())

    async def gone() -> bool:
        return not alive(pid)

    await until(gone, "the child is gone", seconds=5)
