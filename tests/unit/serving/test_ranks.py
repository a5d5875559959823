"""Ranks on several hosts: what the leader starts, what its workers let in, and what is missing by name."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import pytest

from enginewright_api.errors import DeterministicError
from enginewright_serving import ranks
from enginewright_serving.ranks import Group, group_of, hold_ranks, launched, sshd_command


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A pair as the Secret mounts it."""
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "ssh-publickey").write_text("ssh-ed25519 AAAA group\n")
    (folder / "ssh-privatekey").write_text("secret")
    return folder / "ssh-privatekey"


def programs(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)


def test_without_hosts_all_ranks_are_here(key: Path) -> None:
    assert group_of("", 8, 2222, None) is None
    assert group_of("a.set,a-1.set", 8, 2222, key) == Group(("a.set", "a-1.set"), 8, 2222, key)


def test_every_gpu_of_every_host_gets_a_rank(key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, "mpirun", "ssh", "trtllm-llmapi-launch")
    monkeypatch.setenv("PATH", str(tmp_path))
    group = Group(("a.set", "a-1.set"), 8, 2222, key)
    command = launched(["tritonserver", "--model-repository=/models"], group, tmp_path)
    assert command[0] == str(tmp_path / "mpirun")
    assert command[-3:] == [str(tmp_path / "trtllm-llmapi-launch"), "tritonserver", "--model-repository=/models"]
    given = dict(itertools.pairwise(command))
    assert (given["-n"], given["--host"], given["--map-by"]) == ("16", "a.set:8,a-1.set:8", "ppr:8:node")
    agent = shlex.split(command[command.index("plm_rsh_args") + 1])
    assert agent[:4] == ["-p", "2222", "-i", str(key)]
    assert "StrictHostKeyChecking=yes" in agent
    (known,) = [part.partition("=")[2] for part in agent if part.startswith("UserKnownHostsFile=")]
    assert Path(known).read_text() == "ranks ssh-ed25519 AAAA group\n", "a worker has to prove that it is of the group"


def test_workers_let_in_the_groups_key_alone(key: Path) -> None:
    command = sshd_command("/usr/sbin/sshd", 2222, key)
    settings = {command[n + 1] for n, part in enumerate(command) if part == "-o"}
    assert settings >= {"AuthenticationMethods=publickey", "DisableForwarding=yes"}
    assert f"AuthorizedKeysFile={key.parent / 'ssh-publickey'}" in settings
    assert command[command.index("-f") + 1] == "/dev/null", "settings of the image do not count"


def test_what_is_missing_is_named(key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeterministicError, match="--rank-key"):
        group_of("a,b", 8, 2222, None)
    with pytest.raises(DeterministicError, match="names must differ"):
        group_of("a,a", 8, 2222, key)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeterministicError, match="mpirun: not in this image") as missing:
        launched(["tritonserver"], Group(("a", "b"), 8, 2222, key), tmp_path)
    assert missing.value.reason == "ToolchainMissing"
    monkeypatch.setattr(ranks.shutil, "which", lambda name, path: None)
    with pytest.raises(DeterministicError, match="sshd: not in this image"):
        hold_ranks(2222, key)
    (key.parent / "ssh-publickey").unlink()
    with pytest.raises(DeterministicError, match="ssh-publickey: cannot be read") as missing:
        hold_ranks(2222, key)
    assert missing.value.reason == "RankKeyMissing"
