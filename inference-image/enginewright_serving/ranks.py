"""One engine on several hosts: the leader starts its ranks there by mpirun over ssh, the workers let it.

TensorRT-LLM's LLM API runs on many nodes as `mpirun ... trtllm-llmapi-launch COMMAND`: rank 0 runs COMMAND, the others
serve it (tensorrt_llm/llmapi/trtllm-llmapi-launch). One key pair is user key and host key at once: whoever has it is of
the group, on either side. mpirun, ssh and sshd are those of the image; none of them needs to be root.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from enginewright_api.errors import DeterministicError
from enginewright_serving.threads import THREADS_VARIABLE

PUBLIC_KEY = "ssh-publickey"
"""File beside the private key, as `ssh-keygen` writes it."""

_ALIAS = "ranks"
_ATTEMPTS = 300
_FORWARDED = (
    "PATH", "LD_LIBRARY_PATH", "HOME", "USER", "LOGNAME", THREADS_VARIABLE, "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM",
    "HF_HUB_OFFLINE",
)  # fmt: skip
"""Variables that a session on another host would lack."""


@dataclass(frozen=True, slots=True)
class Group:
    """Hosts of one engine, this one first, with `ranks_per_host` GPUs each."""

    hosts: tuple[str, ...]
    ranks_per_host: int
    port: int
    key: Path


def group_of(hosts: str, ranks_per_host: int, port: int, key: Path | None) -> Group | None:
    """From the command line; None without hosts. Raises DeterministicError Usage or RankKeyMissing."""
    names = tuple(name for name in hosts.split(",") if name)
    if not names:
        return None
    if len(names) != len(set(names)):
        raise DeterministicError("Usage", f"--hosts {hosts}: names must differ")
    return Group(names, ranks_per_host, port, _checked(key))


def launched(command: Sequence[str], group: Group, folder: Path) -> list[str]:
    """argv that runs `command` on rank 0 and a rank for every GPU of the group. `folder` takes the hosts' key.

    Raises DeterministicError ToolchainMissing where the image has no mpirun, ssh or TensorRT-LLM.
    """
    mpirun, ssh, launch = (_program(name) for name in ("mpirun", "ssh", "trtllm-llmapi-launch"))
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(f"{_ALIAS} {(group.key.parent / PUBLIC_KEY).read_text().strip()}\n")
    settings = {
        "HostKeyAlias": _ALIAS,
        "UserKnownHostsFile": str(known_hosts),
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": "5",
        # A worker may still be admitting the engine.
        "ConnectionAttempts": str(_ATTEMPTS),
    }
    agent = ["-p", str(group.port), "-i", str(group.key), "-F", "none"]
    agent += [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    return [
        mpirun,
        "-n", str(len(group.hosts) * group.ranks_per_host),
        "--host", ",".join(f"{host}:{group.ranks_per_host}" for host in group.hosts),
        "--map-by", f"ppr:{group.ranks_per_host}:node",
        "--mca", "plm_rsh_agent", ssh,
        "--mca", "plm_rsh_args", shlex.join(agent),
        # Host names of a group's pods differ after the first dot only where their set does.
        "--mca", "orte_keep_fqdn_hostnames", "1",
        *(part for name in _FORWARDED for part in ("-x", name)),
        launch,
        *command,
    ]  # fmt: skip


def hold_ranks(port: int, key: Path | None) -> NoReturn:
    """Becomes sshd. Raises DeterministicError RankKeyMissing or ToolchainMissing."""
    checked = _checked(key)
    command = sshd_command(_program("sshd"), port, checked)
    os.execv(command[0], command)  # noqa: S606 - an argument list, no shell


def sshd_command(sshd: str, port: int, key: Path) -> list[str]:
    """argv of a server that lets in whoever has the group's key, as the user it runs as, and forwards nothing."""
    settings = {
        "AuthorizedKeysFile": str(key.parent / PUBLIC_KEY),
        "AuthenticationMethods": "publickey",
        # The folder is a mounted Secret, which belongs to root.
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
        "DisableForwarding": "yes",
        "PermitTTY": "no",
        "PermitUserRC": "no",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    return [sshd, "-D", "-e", "-f", "/dev/null", "-p", str(port), "-h", str(key), *options]


def _checked(key: Path | None) -> Path:
    if key is None:
        raise DeterministicError("Usage", "--rank-key: ranks on several hosts need the SSH key of their group")
    for file in (key, key.parent / PUBLIC_KEY):
        if not os.access(file, os.R_OK):
            raise DeterministicError(
                "RankKeyMissing",
                f"{file}: cannot be read; make the pair with ssh-keygen -t ed25519 -N '' and put it into the Secret as"
                f" {key.name} and {PUBLIC_KEY}",
            )
    return key


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        raise DeterministicError(
            "ToolchainMissing",
            f"{name}: not in this image; an engine on several hosts needs NVIDIA's Triton image for TensorRT-LLM with"
            " openssh-client and openssh-server",
        )
    return found
