"""Results of stages by key: in the work folder, and in the store for what is shared.

    <workdir>/stages/<key>/files/...   written below <workdir>/scratch first, then renamed here as a whole
    <workdir>/stages/<key>/stage.json
    <store>/stages/<key>/files/<sha256>
    <store>/stages/<key>/stage.json    written last

So a half-written result is never seen, and a build that was killed goes on after its last finished stage.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import Field, ValidationError

from enginewright_api.errors import EnginewrightError
from enginewright_api.geometry import CheckpointSizes
from enginewright_api.identity import canonical_json
from enginewright_api.manifest import ArtifactFile
from enginewright_api.model_base import ApiModel
from enginewright_api.outcome import StageLine, StageReport, StageState
from enginewright_builder.failures import InterruptedBuildError, StageError, translate
from enginewright_builder.places import Places
from enginewright_builder.progress import Progress
from enginewright_builder.stages.stage import Output, Stage
from enginewright_store.artifact import describe_files
from enginewright_store.medium import NotInStoreError
from enginewright_store.store import Store

_log = logging.getLogger(__name__)
_RECORD = "stage.json"
_TRANSFERS_AT_ONCE = 4


class Record(ApiModel):
    """stage.json."""

    name: str
    key: str
    files: list[ArtifactFile]
    result: dict[str, object] = Field(default_factory=dict)


class StageCache:
    """Runs stages that have no result yet."""

    def __init__(
        self,
        places: Places,
        store: Store,
        progress: Progress,
        reports: list[StageReport],
        meaning: Callable[[BaseException], EnginewrightError] = translate,
    ) -> None:
        self._places = places
        self._store = store
        self._progress = progress
        self._meaning = meaning
        self.reports = reports
        self.results: dict[str, dict[str, object]] = {}
        """What each stage told, by name, for the report."""

    def run(self, stage: Stage) -> Output:
        """The stage's result, from the cache where it is. Raises StageError."""
        begun = time.monotonic()
        self._progress.tell(StageReport(name=stage.name, state=StageState.RUNNING))
        try:
            key = stage.key()
            record = self._local(key) or self._fetched(stage, key)
            state = StageState.CACHED
            if record is None:
                record = self._made(stage, key)
                state = StageState.SUCCEEDED
        except Exception as error:  # every failure of a stage is reported with the stage's name
            known = self._meaning(error)
            if known is not error and not isinstance(known, InterruptedBuildError):
                _log.error("stage %s failed", stage.name, exc_info=error)
            self._done(stage, StageState.FAILED, begun, known.message)
            raise StageError(stage.name, known) from error
        self.results[stage.name] = record.result
        self._done(stage, state, begun, str(record.result.get("message", "")))
        return Output(key, self._folder(key) / "files", record.result)

    def tell(self, name: str, fraction: float, message: str = "") -> None:
        """A long stage moved on."""
        self._progress.tell(
            StageReport(name=name, state=StageState.RUNNING, fraction=round(fraction, 3), message=message)
        )

    @property
    def ended(self) -> tuple[StageReport, ...]:
        """How each stage ended, without what was told of it beside."""
        return tuple(report for report in self.reports if not isinstance(report, StageLine))

    def tell_sizes(
        self, name: str, *, checkpoint: CheckpointSizes | None = None, draft_checkpoint: CheckpointSizes | None = None
    ) -> None:
        """Of the checkpoint that a stage has brought: its last line once more, with them."""
        last = next(report for report in reversed(self.reports) if report.name == name)
        line = StageLine(**last.model_dump(), checkpoint=checkpoint, draft_checkpoint=draft_checkpoint)
        self.reports.append(line)
        self._progress.tell(line)

    def _done(self, stage: Stage, state: StageState, begun: float, message: str) -> None:
        report = StageReport(
            name=stage.name, state=state, seconds=round(time.monotonic() - begun, 2), message=message[:300]
        )
        self.reports.append(report)
        self._progress.tell(report)

    def _folder(self, key: str) -> Path:
        return self._places.stages / key

    def _local(self, key: str) -> Record | None:
        folder = self._folder(key)
        try:
            record = Record.model_validate_json((folder / _RECORD).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            record = None
        if record is not None and all(_whole(folder / "files", file) for file in record.files):
            return record
        _log.warning("result %s in the work folder is damaged; it is made again", key[:16])
        shutil.rmtree(folder)
        return None

    def _fetched(self, stage: Stage, key: str) -> Record | None:
        if not stage.shared:
            return None
        try:
            record = Record.model_validate_json(self._store.read(f"stages/{key}/{_RECORD}"))
        except (NotInStoreError, ValidationError):
            return None
        scratch = self._scratch()
        try:
            for file in record.files:
                target = scratch / "files" / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                self._store.download(_stored(key, file), target, size=file.size, sha256=file.sha256)
        except EnginewrightError as error:
            # A cache that cannot be read costs time, not the build.
            _log.warning("result %s in the store cannot be used: %s", key[:16], error)
            shutil.rmtree(scratch)
            return None
        return self._keep(scratch, record)

    def _made(self, stage: Stage, key: str) -> Record:
        scratch = self._scratch()
        files = scratch / "files"
        files.mkdir()
        try:
            result = stage.run(files)
            record = Record(name=stage.name, key=key, files=describe_files(files), result=result)
            record = self._keep(scratch, record)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        if stage.shared:
            self._send(record)
        return record

    def _keep(self, scratch: Path, record: Record) -> Record:
        (scratch / _RECORD).write_bytes(canonical_json(record.wire()))
        target = self._folder(record.key)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            scratch.rename(target)
        except OSError:
            # Another builder in the same work folder was first.
            first = self._local(record.key)
            if first is None:
                raise
            shutil.rmtree(scratch)
            return first
        return record

    def _send(self, record: Record) -> None:
        files = self._folder(record.key) / "files"

        def upload(file: ArtifactFile) -> None:
            if self._store.size(_stored(record.key, file)) != file.size:
                self._store.upload(files / file.path, _stored(record.key, file))

        with ThreadPoolExecutor(_TRANSFERS_AT_ONCE, thread_name_prefix="upload") as pool:
            list(pool.map(upload, record.files))
        self._store.put(f"stages/{record.key}/{_RECORD}", canonical_json(record.wire()))

    def _scratch(self) -> Path:
        self._places.scratch.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="stage-", dir=self._places.scratch))


def _stored(key: str, file: ArtifactFile) -> str:
    return f"stages/{key}/files/{file.sha256}"


def _whole(folder: Path, file: ArtifactFile) -> bool:
    path = folder / file.path
    return path.is_file() and path.stat().st_size == file.size
