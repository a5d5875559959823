"""`python -m enginewright_builder.toolchain.process`: one JSON task a line in, one JSON reply a line out.

A process of its own, so that the builder survives when the kernel kills it for memory, and so that the builder itself
stays small. It lives as long as its standard input: importing the toolchain costs more than most tasks.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import IO

from enginewright_api.engine_description import TOKEN_SCORES
from enginewright_api.errors import DeterministicError, EnginewrightError
from enginewright_builder.failures import translate
from enginewright_builder.toolchain.backends import backend_for
from enginewright_builder.toolchain.inputs import feeds
from enginewright_builder.toolchain.tasks import (
    TASK,
    AnyTask,
    CompileTask,
    ExportTask,
    Progress,
    QuantizeTask,
    Reply,
    TransformTask,
)
from enginewright_builder.toolchain.transforms import transform

_log = logging.getLogger(__name__)


def main() -> None:
    """Serve tasks until standard input ends."""
    _end_with_family_on_sigterm()
    # Libraries print to standard output as they like; replies go to a private copy of it.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    preload = threading.Thread(target=_preload, name="preload", daemon=True)
    preload.start()
    _serve(sys.stdin, replies, threads, preload)


def _end_with_family_on_sigterm() -> None:
    """SIGTERM (which also comes when the builder dies) ends this process and whatever the toolchains forked off.

    From a thread that waits for it: a Python signal handler would wait for the compiler to return.
    """
    if os.getpgrp() != os.getpid():
        return  # started by hand, in somebody else's process group
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        signal.sigwait({signal.SIGTERM})
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, name="sigterm", daemon=True).start()


def _serve(tasks: IO[str], replies: IO[str], threads: int, preload: threading.Thread) -> None:
    def tell(fraction: float, message: str) -> None:
        replies.write(Progress(progress=round(fraction, 3), message=message).model_dump_json(by_alias=True) + "\n")
        replies.flush()

    for line in tasks:
        preload.join()
        try:
            reply = Reply(result=_perform(TASK.validate_json(line), threads, tell))
        except Exception as error:  # the process must answer, whatever a toolchain raises
            reply = _reply_of(error)
        replies.write(reply.model_dump_json(by_alias=True) + "\n")
        replies.flush()


def _preload() -> None:
    """Imports that every build needs, while the checkpoint is still being fetched."""
    import torch
    import transformers.masking_utils  # noqa: F401 - imported for its side effect: it is slow

    torch.manual_seed(0)


def _perform(task: AnyTask, threads: int, tell: Callable[[float, str], None]) -> dict[str, object]:
    import torch

    torch.set_num_threads(threads)
    if isinstance(task, TransformTask):
        return transform(task, tell)
    backend = backend_for(task.description)
    if isinstance(task, ExportTask):
        return backend.export(task.checkpoint, task.description, task.into) or {}
    if isinstance(task, QuantizeTask):
        tokens = task.quantization.calibration.max_tokens
        calibration = list(feeds(task.texts, task.tokenizer, task.description, max_tokens=tokens))
        return backend.quantize(task.graph, task.description, task.quantization, calibration, task.into)
    backend.compile(task.graph, task.description, task.into)
    return _probe(task, threads)


def _probe(task: CompileTask, threads: int) -> dict[str, object]:
    """The engine loads and answers with finite numbers of the right shape, before any server is started."""
    import numpy as np

    backend = backend_for(task.description)
    limit = task.description.limits.max_input_tokens
    inputs = list(feeds(task.probe, task.tokenizer, task.description, max_tokens=limit))
    for fed, answer in zip(inputs, backend.answers(task.into, task.description, inputs, threads), strict=True):
        tokens = fed["input_ids"].shape[1:] if task.description.output == TOKEN_SCORES else ()
        expected = (1, *tokens, task.description.output_dimension)
        if task.description.generation is None and answer.shape != expected:
            raise DeterministicError(
                "WrongOutputShape", f"the compiled engine gives shape {answer.shape}, expected {expected}"
            )
        if not np.isfinite(answer).all():
            raise DeterministicError("NotFinite", "the compiled engine gives NaN or infinity on real text")
    return {}


def _reply_of(error: Exception) -> Reply:
    known = error if isinstance(error, EnginewrightError) else translate(error)
    if known is not error:
        _log.error("task failed", exc_info=error)
    return Reply(error_class=known.failure_class.value, reason=known.reason, message=known.message)


if __name__ == "__main__":
    main()
