"""`enginewright-serving`: stage, admit and serve engines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from enginewright_serving.ranks import group_of, hold_ranks
from enginewright_serving.repository import read_batching, stage
from enginewright_serving.serving import LOOK_EVERY_SECONDS, Serve, serve
from enginewright_serving.termination import reported
from enginewright_serving.threads import engine_threads
from enginewright_serving.tritonserver import Listen

app = typer.Typer(help="Stage, admit and serve engines.", add_completion=False, no_args_is_help=True)

Dest = Annotated[Path, typer.Option(help="Folder of the Triton repository, made when missing.")]
ModelName = Annotated[str, typer.Option(help="Name of the served model.")]
BatchingFile = Annotated[Path | None, typer.Option(help="spec.batching as a JSON file; defaults without it.")]
RankPort = Annotated[int, typer.Option(min=1, max=65535, help="Where a group's workers listen for their leader.")]
RankKey = Annotated[
    Path | None, typer.Option(help="SSH key of the group; the public one lies beside it as ssh-publickey.")
]


@app.command("stage")
def stage_command(
    *,
    engine: Annotated[Path, typer.Option(help="Unpublished engine: engine.json, engine/, tokenizer/.")],
    dest: Dest,
    model_name: ModelName,
    batching: BatchingFile = None,
) -> None:
    """Write a Triton repository around an unpublished engine, which is linked to."""
    with reported():
        stage(engine, dest, model_name, read_batching(batching))


@app.command("admit")
def admit_command(
    *,
    artifact: Annotated[str, typer.Option(help="Folder of the artifact: <store>/artifacts/<key>.")],
    digest: Annotated[str, typer.Option(help="sha256:<hex> of its manifest.json.")],
    dest: Dest,
    model_name: ModelName,
    batching: BatchingFile = None,
    accelerator_class: Annotated[str, typer.Option(help="AcceleratorClass of this node, for messages.")] = "",
    public_key: Annotated[list[Path] | None, typer.Option(help="Trusted EC public keys, PEM; may be repeated.")] = None,
    require_signature: Annotated[bool, typer.Option(help="Refuse artifacts that no trusted key signed.")] = True,
    cache_dir: Annotated[Path | None, typer.Option(help="Engines kept on this node, shared by its pods.")] = None,
    cache_bytes: Annotated[int, typer.Option(min=1, help="Size the cache is held to.")] = 50 * 2**30,
) -> None:
    """Fetch an engine, verify it, check that it fits this node, and write its Triton repository."""
    from enginewright_serving.admit import Admission, admit

    with reported():
        admit(
            Admission(
                artifact_uri=artifact,
                digest=digest,
                dest=dest,
                model=model_name,
                batching=batching,
                accelerator_class=accelerator_class,
                public_keys=tuple(public_key or ()),
                require_signature=require_signature,
                cache=cache_dir,
                cache_bytes=cache_bytes,
            )
        )


@app.command("serve")
def serve_command(
    *,
    repository: Annotated[Path, typer.Option(help="Triton repository, from admit or stage.")],
    model: ModelName,
    http_port: Annotated[int, typer.Option(help="KServe v2 over HTTP.")],
    grpc_port: Annotated[int, typer.Option(help="KServe v2 over gRPC.")],
    metrics_port: Annotated[int, typer.Option(help="The server's Prometheus metrics.")],
    health_port: Annotated[int, typer.Option(help="/readyz and /livez.")],
    address: Annotated[str, typer.Option(help="Address of all ports.")] = "127.0.0.1",
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads of the engine; ENGINE_THREADS, else all cores.")
    ] = None,
    drain_seconds: Annotated[
        float, typer.Option(min=0.0, help="Longest wait for requests in flight on SIGTERM.")
    ] = 10.0,
    start_seconds: Annotated[float, typer.Option(min=1.0, help="Longest wait for the first answer.")] = 600.0,
    look_seconds: Annotated[
        float, typer.Option(min=0.1, help="Pause between the short inferences that tell whether the model answers.")
    ] = LOOK_EVERY_SECONDS,
    hosts: Annotated[str, typer.Option(help="Hosts of a group, this one first, a,b,c: ranks run on all of them.")] = "",
    ranks_per_host: Annotated[int, typer.Option(min=1, help="With --hosts: ranks, and so GPUs, of each.")] = 1,
    rank_port: RankPort = 2222,
    rank_key: RankKey = None,
) -> None:
    """Run the server on one model until SIGTERM; exits non-zero when it dies."""
    with reported():
        serve(
            Serve(
                repository=repository,
                model=model,
                listen=Listen(address, http_port, grpc_port, metrics_port),
                health_port=health_port,
                threads=threads or engine_threads(os.environ),
                drain_seconds=drain_seconds,
                start_seconds=start_seconds,
                look_seconds=look_seconds,
                group=group_of(hosts, ranks_per_host, rank_port, rank_key),
            )
        )


@app.command("hold-ranks")
def hold_ranks_command(*, rank_port: RankPort = 2222, rank_key: RankKey = None) -> None:
    """Let the leader of this group start ranks here: sshd that takes the group's key and nothing else."""
    with reported():
        hold_ranks(rank_port, rank_key)


def main() -> None:
    """Console script."""
    app()
