"""Deployments, Jobs and Services on the local node, with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest

from enginewright_cluster.port import DEPLOYMENT, ENDPOINT_SLICE, JOB, NODE, POD, SERVICE, Ref
from tests.unit.cluster.conftest import NAMESPACE, Machine, alive, python, server, until


def condition(item: dict, kind: str) -> dict:
    return next(entry for entry in item["status"]["conditions"] if entry["type"] == kind)


async def answer(port: int) -> str:
    async with httpx.AsyncClient(timeout=2) as client:
        return (await client.get(f"http://127.0.0.1:{port}/")).text


# Deployments and Services


async def test_deployment_serves_on_ports_of_its_own(machine: Machine) -> None:
    await machine.service()
    await machine.deployment(server(env={"ANSWER": "$(HTTP_PORT)"}), replicas=2)
    await machine.available(2)
    slices = await machine.cluster.list(ENDPOINT_SLICE, labels={"kubernetes.io/service-name": "d"})
    assert {item["endpoints"][0]["targetRef"]["name"] for item in slices} == {
        item["metadata"]["name"] for item in await machine.pods(app="d")
    }
    for port in await machine.ready_ports():
        assert await answer(port) == str(port)
    deployment = await machine.get(DEPLOYMENT, "d")
    assert deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"]
    assert condition(deployment, "Available")["status"] == "True"
    assert condition(deployment, "Progressing")["reason"] == "NewReplicaSetAvailable"
    await machine.cluster.scale(Ref(DEPLOYMENT, "d", NAMESPACE), 1)
    await machine.available(1)
    await machine.cluster.scale(Ref(DEPLOYMENT, "d", NAMESPACE), 0)
    await machine.available(0)
    assert await machine.ready_ports() == set()


async def test_rolling_update_leaves_no_gap(machine: Machine) -> None:
    await machine.service()
    update = {"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}
    await machine.deployment(server(env={"ANSWER": "old"}), replicas=2, **update)
    await machine.available(2)
    seen: list[int] = []
    stop = asyncio.Event()

    async def observe() -> None:
        while not stop.is_set():
            seen.append(len(await machine.ready_ports()))
            await asyncio.sleep(0.01)

    observer = asyncio.create_task(observe())
    await machine.deployment(server(env={"ANSWER": "new"}), replicas=2, **update)

    async def all_new() -> bool:
        ports = await machine.ready_ports()
        try:
            return len(ports) == 2 and {await answer(port) for port in ports} == {"new"}
        except httpx.HTTPError:
            return False

    await until(all_new, "the new version serves alone")
    stop.set()
    await observer
    await machine.available(2)
    assert min(seen) >= 2
    assert max(seen) <= 3


async def test_requests_survive_a_rolling_update(machine: Machine) -> None:
    """A client that picks an endpoint afresh for each request, as the gateway does, never fails."""
    await machine.service()
    await machine.deployment(server(env={"ANSWER": "old"}), replicas=1, strategy={"rollingUpdate": {"maxSurge": 1}})
    await machine.available(1)
    failures: list[str] = []
    answers: set[str] = set()

    async def ask() -> None:
        while "new" not in answers:
            try:
                answers.add(await answer(next(iter(await machine.ready_ports()))))
            except (httpx.HTTPError, StopIteration) as error:
                failures.append(repr(error))
            await asyncio.sleep(0.01)

    asking = asyncio.create_task(ask())
    await machine.deployment(server(env={"ANSWER": "new"}), replicas=1, strategy={"rollingUpdate": {"maxSurge": 1}})
    async with asyncio.timeout(20):
        await asking
    assert failures == []
    assert "old" in answers


async def test_never_ready_update_keeps_the_old_and_says_so(machine: Machine, tmp_path: Path) -> None:
    await machine.service()
    update = {"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}, "progressDeadlineSeconds": 2}
    await machine.deployment(server(), replicas=1, **update)
    await machine.available(1)
    before = await machine.ready_ports()
    broken = tmp_path / "unready"
    broken.touch()
    await machine.deployment(server(env={"UNREADY": str(broken)}), replicas=1, **update)

    async def late() -> bool:
        deployment = await machine.get(DEPLOYMENT, "d")
        return condition(deployment, "Progressing")["reason"] == "ProgressDeadlineExceeded"

    await until(late, "the deadline is reported")
    assert condition(await machine.get(DEPLOYMENT, "d"), "Available")["status"] == "True"
    assert await machine.ready_ports() == before


async def test_killed_server_comes_back(machine: Machine) -> None:
    await machine.service()
    await machine.deployment(server(env={"ANSWER": "here"}), replicas=1)
    await machine.available(1)
    (pod,) = await machine.pods(app="d")
    identity = pod["status"]["containerStatuses"][0]["containerID"]
    os.kill(int(identity.removeprefix("process://")), signal.SIGKILL)

    async def back() -> bool:
        (again,) = await machine.pods(app="d")
        status = again["status"]["containerStatuses"][0]
        return status["restartCount"] == 1 and status["ready"]

    await until(back, "restarted in place")

    async def serves() -> bool:
        ports = await machine.ready_ports()
        return bool(ports) and await answer(next(iter(ports))) == "here"

    await until(serves, "serves again")


async def test_deleted_pod_is_replaced_and_deleted_deployment_leaves_nothing(machine: Machine) -> None:
    await machine.service()
    await machine.deployment(server(), replicas=1)
    await machine.available(1)
    (first,) = await machine.pods(app="d")
    pid = int(first["status"]["containerStatuses"][0]["containerID"].removeprefix("process://"))
    await machine.delete(POD, first["metadata"]["name"])
    await machine.gone(POD, first["metadata"]["name"])
    await machine.available(1)
    assert not alive(pid)
    (second,) = await machine.pods(app="d")
    pid = int(second["status"]["containerStatuses"][0]["containerID"].removeprefix("process://"))
    await machine.delete(DEPLOYMENT, "d")
    await machine.delete(SERVICE, "d")
    await machine.gone(POD, second["metadata"]["name"])
    assert not alive(pid)
    await machine.endpoints(0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_fixed_port_is_kept_through_an_update(machine: Machine) -> None:
    port = free_port()
    await machine.service(**{"enginewright.io/local-ports": json.dumps({"http": port})})
    await machine.deployment(server(env={"ANSWER": "old"}), replicas=1)
    await machine.available(1)
    assert await answer(port) == "old"
    await machine.deployment(server(env={"ANSWER": "new"}), replicas=1)

    async def new() -> bool:
        try:
            return await answer(port) == "new"
        except httpx.HTTPError:
            return False

    await until(new, "the new version at the same port")


async def test_taken_port_is_named_and_waited_for(machine: Machine) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = int(squatter.getsockname()[1])
        await machine.service(**{"enginewright.io/local-ports": json.dumps({"http": port})})
        await machine.deployment(server(), replicas=1)

        async def said() -> bool:
            return any(str(port) in item["message"] for item in await machine.events("PortTaken"))

        await until(said, "an Event names the port")
        (pod,) = await machine.pods(app="d")
        waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]
        assert waiting["reason"] == "PortTaken"
        assert str(port) in waiting["message"]
    await machine.available(1)


# Jobs


async def test_job_completes_and_is_removed_after_its_time(machine: Machine) -> None:
    await machine.job(python("print('built')"), ttlSecondsAfterFinished=4)  # time enough to look, on a busy machine
    job = await machine.job_condition("Complete")
    assert job["status"]["succeeded"] == 1
    assert job["status"]["completionTime"] >= job["status"]["startTime"]
    (pod,) = await machine.pods(**{"job-name": "j"})
    assert await machine.cluster.logs(Ref(POD, pod["metadata"]["name"], NAMESPACE)) == "built\n"
    await machine.gone(JOB, "j")
    await machine.gone(POD, pod["metadata"]["name"])


async def test_failing_job_tries_as_often_as_allowed(machine: Machine) -> None:
    code = "import os; open(os.environ['TERMINATION_MESSAGE_PATH'], 'w').write('NoSpace: full'); exit(21)"
    await machine.job(python(code), backoffLimit=1)
    job = await machine.job_condition("Failed")
    assert condition(job, "Failed")["reason"] == "BackoffLimitExceeded"
    assert job["status"]["failed"] == 2
    ends = [pod["status"]["containerStatuses"][0]["state"]["terminated"] for pod in await machine.pods()]
    assert [(end["exitCode"], end["message"]) for end in ends] == [(21, "NoSpace: full")] * 2


async def test_job_over_its_deadline_is_ended(machine: Machine, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    await machine.job(python(code), activeDeadlineSeconds=1)
    job = await machine.job_condition("Failed")
    assert condition(job, "Failed")["reason"] == "DeadlineExceeded"

    async def ended() -> bool:
        return note.exists() and not alive(int(note.read_text()))

    await until(ended, "the process is gone")


@pytest.mark.parametrize(
    ("action", "code", "reason", "pods"),
    [("FailJob", 20, "PodFailurePolicy", 1), ("FailJob", 22, "BackoffLimitExceeded", 2)],
)
async def test_failure_policy_ends_what_retrying_cannot_help(
    machine: Machine, action: str, code: int, reason: str, pods: int
) -> None:
    rule = {"action": action, "onExitCodes": {"operator": "In", "values": [20]}}
    await machine.job(python(f"exit({code})"), backoffLimit=1, podFailurePolicy={"rules": [rule]})
    job = await machine.job_condition("Failed")
    assert condition(job, "Failed")["reason"] == reason
    assert len(await machine.pods()) == pods


async def test_parallel_job_is_refused_not_run_wrongly(machine: Machine) -> None:
    await machine.job(python("pass"), completions=3)
    job = await machine.job_condition("Failed")
    assert condition(job, "Failed")["reason"] == "NotSupported"
    assert await machine.pods() == []


# The agent itself


async def test_node_shows_this_machine(machine: Machine) -> None:
    node = await machine.cluster.get(Ref(NODE, "local"))
    assert condition(node, "Ready")["status"] == "True"
    assert int(node["status"]["allocatable"]["cpu"]) == len(os.sched_getaffinity(0))


async def test_repeated_events_are_counted(machine: Machine) -> None:
    await machine.pod(python("exit(1)"))

    async def counted() -> bool:
        return any(item["count"] >= 1 for item in await machine.events("BackOff"))

    await until(counted, "back-off event")
    await machine.pod({"name": "c", "image": "x"}, name="bad")

    async def repeated() -> bool:
        return [item["count"] for item in await machine.events("Failed") if item["involvedObject"]["name"] == "bad"] > [
            1
        ]

    await until(repeated, "one event, counted")


async def test_idle_agent_writes_nothing(machine: Machine) -> None:
    await machine.service()
    await machine.deployment(server(), replicas=1)
    await machine.available(1)
    await asyncio.sleep(0.5)

    async def versions() -> list[str]:
        return [
            item["metadata"]["resourceVersion"]
            for kind in (DEPLOYMENT, POD, SERVICE, ENDPOINT_SLICE, NODE)
            for item in await machine.cluster.list(kind)
        ]

    before = await versions()
    await asyncio.sleep(1.5)
    assert await versions() == before


class Agent:
    """The agent as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, folder: Path) -> Agent:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "enginewright_cluster.agent", "--state-dir", str(folder / "state"),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        return cls(process)

    async def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        await self.process.communicate()
        return self.process.returncode or 0


PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
open(os.environ["NOTE"], "a").write(f"{os.getpid()} {child.pid}\\n")
child.wait()
"""


def line_count(note: Path) -> int:
    return note.read_text().count("\n") if note.exists() else 0


async def noted(note: Path, lines: int) -> list[int]:
    async def written() -> bool:
        return line_count(note) >= lines

    await until(written, f"{lines} start(s)")
    return numbers(note, lines)


def numbers(note: Path, line: int) -> list[int]:
    return [int(word) for word in note.read_text().splitlines()[line - 1].split()]


async def test_nothing_outlives_a_killed_agent_and_the_next_one_repairs(idle_machine: Machine, tmp_path: Path) -> None:
    machine, note = idle_machine, tmp_path / "note"
    await machine.service()
    await machine.deployment(python(PARENT, env={"NOTE": str(note)}), replicas=1)
    await machine.job(python("import time; time.sleep(120)"))
    agent = await Agent.start(tmp_path)
    first = await noted(note, 1)
    await machine.available(1)
    await machine.phase("j-0", "Running")
    await agent.end(signal.SIGKILL)

    async def all_gone() -> bool:
        return not any(alive(pid) for pid in first)

    await until(all_gone, "parent and child are gone")
    agent = await Agent.start(tmp_path)
    second = await noted(note, 2)
    assert not set(first) & set(second)
    job = await machine.job_condition("Failed")
    assert job["status"]["failed"] == 1
    assert (await machine.status(POD, "j-0"))["reason"] == "NodeLost"
    await machine.available(1)
    (pod,) = await machine.pods(app="d")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 1
    assert await agent.end(signal.SIGTERM) == 0


async def test_orderly_stop_ends_everything_and_withdraws_endpoints(idle_machine: Machine, tmp_path: Path) -> None:
    machine, note = idle_machine, tmp_path / "note"
    await machine.service()
    await machine.deployment(server(), replicas=2)
    await machine.job(python(PARENT, env={"NOTE": str(note)}))
    agent = await Agent.start(tmp_path)
    pids = await noted(note, 1)
    await machine.available(2)
    pids += [
        int(pod["status"]["containerStatuses"][0]["containerID"].removeprefix("process://"))
        for pod in await machine.pods(app="d")
    ]
    assert await agent.end(signal.SIGTERM) == 0
    assert not any(alive(pid) for pid in pids)
    assert await machine.ready_ports() == set()
    assert (await machine.status(POD, "j-0"))["reason"] == "NodeShutdown"
    node = await machine.cluster.get(Ref(NODE, "local"))
    assert condition(node, "Ready")["status"] == "False"


async def test_second_agent_on_one_folder_is_refused(machine: Machine, tmp_path: Path) -> None:
    second = await Agent.start(tmp_path)
    _, said = await asyncio.wait_for(second.process.communicate(), 20)
    assert second.process.returncode == 20
    assert f"process {os.getpid()}".encode() in said
