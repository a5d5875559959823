"""Command lines that serve a model on several GPUs."""

from __future__ import annotations

from enginewright_api.serving_spec import Parallelism

SERVER = "/opt/tritonserver/bin/tritonserver"
_MODEL = "tensorrt_llm"


def world_size(parallelism: Parallelism) -> int:
    """GPUs of one replica; experts are spread over the same ones."""
    return parallelism.tensor * parallelism.pipeline * parallelism.context


def launch_engine(repository: str, ranks: int) -> list[str]:
    """argv for an engine: MPI's leader mode, one server a rank.

    Only rank 0 loads the whole repository and answers; the others load the engine's model alone. Each needs a name of
    its own for the Python backend's shared memory.
    """
    command = ["mpirun", "--allow-run-as-root"]
    for rank in range(ranks):
        command += ["-n", "1", *_server(repository)]
        if rank:
            command += ["--model-control-mode=explicit", f"--load-model={_MODEL}"]
        command += [f"--backend-config=python,shm-region-prefix-name=prefix{rank}_", ":"]
    return command


def launch_llmapi(repository: str, *, nodes: int = 1, gpus_per_node: int = 1) -> list[str]:
    """argv for the LLM API: one server that spawns its ranks, or `trtllm-llmapi-launch` on every rank of many nodes."""
    server = _server(repository)
    if nodes == 1:
        return server
    ranks = nodes * gpus_per_node
    spread = ["mpirun", "--allow-run-as-root", "-n", str(ranks), "--map-by", f"ppr:{gpus_per_node}:node"]
    return [*spread, "trtllm-llmapi-launch", *server]


def _server(repository: str) -> list[str]:
    return [SERVER, f"--model-repository={repository}", "--disable-auto-complete-config"]
