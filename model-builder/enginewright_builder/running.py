"""A build as a process: signals, children, memory, and an outcome whatever happens."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from types import FrameType

from enginewright_api.errors import EnginewrightError
from enginewright_api.logs import throughout
from enginewright_api.outcome import BuildOutcome, Failure, StageLine, StageReport
from enginewright_api.recipe import BuildRequest
from enginewright_api.support import toolchain_of
from enginewright_builder.build import Build, Built
from enginewright_builder.failures import InterruptedBuildError, OutOfMemoryError, StageError, translate
from enginewright_builder.materials import Materials
from enginewright_builder.processes import Children
from enginewright_builder.progress import Progress, progress_on
from enginewright_builder.resources import Capacity, MemoryWatch
from enginewright_builder.servers.pair import Pair
from enginewright_builder.settings import Settings, read_request
from enginewright_builder.stages.cache import StageCache
from enginewright_builder.toolchain.client import Toolchains
from enginewright_builder.toolchain.environments import DEFAULT
from enginewright_store import open_store
from enginewright_store.signing import SigningKey

_log = logging.getLogger(__name__)
_NO_KEY = "0" * 64
_GIVE_UP_SECONDS = 10.0
_LOG_TAIL_CHARACTERS = 2000


def build(settings: Settings) -> BuildOutcome:
    """Run a build to its outcome; failures are outcomes too."""
    begun = time.monotonic()
    try:
        request = read_request(settings.recipe)
    except EnginewrightError as error:
        return BuildOutcome(key=_NO_KEY, failure=Failure.of(error, stage=""))
    throughout(buildKey=request.key[:16])
    children = Children()
    interruption = Interruption(children)
    progress = progress_on()
    reports: list[StageReport] = []
    built: Built | None = None
    failure: Failure | None = None
    with MemoryWatch(os.getpid()) as memory:
        try:
            built = _run(settings, request, interruption, progress=progress, memory=memory, reports=reports)
        except Exception as error:  # the outcome says what happened, whatever it was
            failure = _failure(error, interruption, settings)
        finally:
            children.close()
            progress.close()
            shutil.rmtree(settings.places.scratch, ignore_errors=True)
    lines = [report for report in reports if isinstance(report, StageLine)]
    return BuildOutcome(
        key=request.key,
        artifact=built.artifact if built else None,
        evidence=built.evidence if built else None,
        failure=failure,
        stages=_last_of_each(reports),
        checkpoint=next((line.checkpoint for line in lines if line.checkpoint), None),
        draft_checkpoint=next((line.draft_checkpoint for line in lines if line.draft_checkpoint), None),
        peak_memory_bytes=memory.peak_bytes,
        seconds=round(time.monotonic() - begun, 2),
    )


class Interruption:
    """SIGTERM and SIGINT end the children; whatever waits for one of them then fails, and the build ends.

    No exception is thrown into running code: a stage's result is either whole or not there.
    """

    def __init__(self, children: Children) -> None:
        self.children = children
        self.happened = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def meaning(self, error: BaseException) -> EnginewrightError:
        """What an error stands for: after a signal, that whatever it was waiting for has been ended."""
        return InterruptedBuildError() if self.happened else translate(error)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self.happened:
            self.happened = True
            threading.Thread(target=self._end, name="interruption", daemon=True).start()

    def _end(self) -> None:
        self.children.close()
        time.sleep(_GIVE_UP_SECONDS)
        # Something that waits for no child did not end in time, such as a transfer to a dead store.
        os._exit(InterruptedBuildError.exit_code)


def _run(
    settings: Settings,
    request: BuildRequest,
    interruption: Interruption,
    *,
    progress: Progress,
    memory: MemoryWatch,
    reports: list[StageReport],
) -> Built:
    places, children = settings.places, interruption.children
    places.scratch.mkdir(parents=True, exist_ok=True)
    key = SigningKey.load(settings.signing_key) if settings.signing_key is not None else None
    store = open_store(settings.store_uri)
    threads = str(settings.threads)
    with (places.workdir / "toolchain.log").open("wb") as log:
        toolchains = Toolchains(
            children,
            {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
            memory,
            log,
            places.scratch,
        )
        if toolchain_of(request.recipe.task, request.recipe.backend) == DEFAULT:
            toolchains.of()  # its imports take seconds: they go on while the checkpoint is fetched
        cache = StageCache(places, store, progress, reports, interruption.meaning)
        return Build(
            request=request,
            store=store,
            places=places,
            capacity=Capacity.of(places.workdir),
            cache=cache,
            materials=Materials(request, cache, places),
            toolchains=toolchains,
            servers=Pair(places, settings.threads, children),
            threads=settings.threads,
            seconds_a_shape=settings.seconds_a_shape,
            signing_key=key,
        ).run()


def _failure(error: Exception, interruption: Interruption, settings: Settings) -> Failure:
    stage = error.stage if isinstance(error, StageError) else ""
    known = error.error if isinstance(error, StageError) else interruption.meaning(error)
    if known is not error and not isinstance(error, StageError) and not interruption.happened:
        _log.error("build failed", exc_info=error)
    failure = Failure.of(known, stage=stage).model_copy(update={"log_tail": _log_tail(settings)})
    if isinstance(known, OutOfMemoryError):
        failure = failure.model_copy(update={"needs_memory_bytes": known.needs_memory_bytes})
    return failure


def _log_tail(settings: Settings) -> str:
    try:
        data = (settings.places.workdir / "toolchain.log").read_bytes()
    except OSError:
        return ""
    return data[-_LOG_TAIL_CHARACTERS:].decode(errors="replace")


def _last_of_each(reports: list[StageReport]) -> list[StageReport]:
    return list({report.name: report for report in reports if not isinstance(report, StageLine)}.values())
