"""Results of stages: made once, found again anywhere, never seen half-written."""

from __future__ import annotations

import errno
import io
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from enginewright_api.errors import DeterministicError, EnginewrightError, ResourceError
from enginewright_api.geometry import CheckpointSizes
from enginewright_api.identity import sha256_hex
from enginewright_api.logs import JsonFormatter
from enginewright_api.outcome import StageReport, StageState
from enginewright_builder.failures import OutOfMemoryError, StageError
from enginewright_builder.places import Places
from enginewright_builder.progress import JsonLines
from enginewright_builder.stages.cache import StageCache
from enginewright_builder.stages.stage import Output
from enginewright_operator.core.progress import ToldSizes, sizes_in, stages_in
from enginewright_store import open_store


@dataclass
class Writing:
    """A stage that writes one file and counts how often it ran."""

    content: str = "result"
    shared: bool = True
    name: str = "writing"
    fails: Callable[[], None] | None = None
    runs: list[Path] = field(default_factory=list)

    def key(self) -> str:
        return sha256_hex(self.content.encode())

    def run(self, into: Path) -> dict[str, Any]:
        self.runs.append(into)
        (into / "folder").mkdir()
        (into / "folder" / "file").write_text(self.content)
        if self.fails is not None:
            self.fails()
        return {"length": len(self.content), "message": "wrote"}


@dataclass
class World:
    """Work folders that share a store."""

    root: Path
    reports: list[StageReport] = field(default_factory=list)
    lines: io.StringIO = field(default_factory=io.StringIO)

    @property
    def store(self) -> Path:
        return self.root / "store"

    def cache(self, work: str = "work") -> StageCache:
        places = Places(self.root / work, self.root, self.root, self.root)
        return StageCache(places, open_store(self.store.as_uri()), JsonLines(self.lines), self.reports)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def states(world: World) -> list[StageState]:
    return [report.state for report in world.reports]


def content(output: Output) -> str:
    return (output.folder / "folder" / "file").read_text()


def test_a_result_is_made_once(world: World) -> None:
    stage = Writing()
    first, second = world.cache().run(stage), world.cache().run(stage)
    assert len(stage.runs) == 1
    assert first == second
    assert (content(second), second.result["length"]) == ("result", 6)
    assert states(world) == [StageState.SUCCEEDED, StageState.CACHED]
    told = [json.loads(line) for line in world.lines.getvalue().splitlines()]
    assert [line["state"] for line in told] == ["Running", "Succeeded", "Running", "Cached"]


def test_sizes_are_told_with_the_stage_that_brought_them(world: World) -> None:
    stage, cache = Writing(), world.cache()
    cache.run(stage)
    sizes = CheckpointSizes(
        layers=6, width=384, heads=12, key_value_heads=12, head_width=32, neurons=1536, vocabulary=100, positions=0,
        gated=False, tied=True,
    )  # fmt: skip
    cache.tell_sizes(stage.name, checkpoint=sizes)
    assert sizes_in(world.lines.getvalue()) == ToldSizes(sizes)
    draft = sizes.model_copy(update={"layers": 2})
    cache.run(Writing("draft", name="fetch-draft"))
    cache.tell_sizes("fetch-draft", draft_checkpoint=draft)
    # A container's log has its standard error in it too.
    record = logging.makeLogRecord({"msg": "result in the store cannot be used", "levelname": "WARNING"})
    log = f"{world.lines.getvalue()}{JsonFormatter().format(record)}\n"
    assert sizes_in(log) == ToldSizes(sizes, draft)
    assert [(report.name, report.state) for report in stages_in(log)] == [
        (stage.name, StageState.SUCCEEDED),
        ("fetch-draft", StageState.SUCCEEDED),
    ]
    assert [report.name for report in cache.ended] == [stage.name, "fetch-draft"], "once each, as reports list them"


def test_another_input_is_another_result(world: World) -> None:
    assert content(world.cache().run(Writing("a"))) == "a"
    assert content(world.cache().run(Writing("b"))) == "b"


@pytest.mark.parametrize(("shared", "runs"), [(True, 1), (False, 2)])
def test_what_is_shared_is_found_by_another_machine(world: World, shared: bool, runs: int) -> None:
    stage = Writing(shared=shared)
    world.cache("one").run(stage)
    assert content(world.cache("two").run(stage)) == "result"
    assert len(stage.runs) == runs


def damage_local(world: World, stage: Writing) -> None:
    (world.root / "work" / "stages" / stage.key() / "files" / "folder" / "file").write_text("sho")


def damage_record(world: World, stage: Writing) -> None:
    (world.root / "work" / "stages" / stage.key() / "stage.json").write_text("{")


def lose_file(world: World, stage: Writing) -> None:
    (world.root / "work" / "stages" / stage.key() / "files" / "folder" / "file").unlink()


@pytest.mark.parametrize("damage", [damage_local, damage_record, lose_file])
def test_a_damaged_local_result_is_replaced(world: World, damage: Callable[[World, Writing], None]) -> None:
    stage = Writing()
    world.cache().run(stage)
    damage(world, stage)
    assert content(world.cache().run(stage)) == "result"


def test_a_poisoned_result_in_the_store_is_made_again(world: World) -> None:
    stage = Writing()
    world.cache("one").run(stage)
    (stored,) = (world.store / "stages" / stage.key() / "files").iterdir()
    stored.write_text("RESULT")
    assert content(world.cache("two").run(stage)) == "result"
    assert len(stage.runs) == 2


def test_a_cut_upload_is_not_seen(world: World) -> None:
    stage = Writing()
    world.cache("one").run(stage)
    (world.store / "stages" / stage.key() / "stage.json").unlink()
    world.cache("two").run(stage)
    assert len(stage.runs) == 2
    assert (world.store / "stages" / stage.key() / "stage.json").is_file()


def test_a_failed_stage_leaves_nothing(world: World) -> None:
    def fail() -> None:
        raise DeterministicError("UnsupportedOperator", "operator X")

    stage = Writing(fails=fail)
    with pytest.raises(StageError) as caught:
        world.cache().run(stage)
    assert (caught.value.stage, caught.value.error.reason) == ("writing", "UnsupportedOperator")
    assert states(world) == [StageState.FAILED]
    assert not (world.root / "work" / "stages").exists()
    assert not list((world.root / "work" / "scratch").iterdir())
    stage.fails = None
    assert content(world.cache().run(stage)) == "result"


def disk_full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "model.onnx")


def copy_on_a_full_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "source.onnx", None, "copy.onnx")


def no_memory() -> None:
    raise MemoryError


def bug() -> None:
    raise KeyError("surprise")


@pytest.mark.parametrize(
    ("fails", "kind", "reason", "word"),
    [
        (disk_full, ResourceError, "DiskFull", "model.onnx"),
        (copy_on_a_full_disk, ResourceError, "DiskFull", "while writing copy.onnx"),
        (no_memory, OutOfMemoryError, "OutOfMemory", "memory"),
        (bug, DeterministicError, "InternalError", "surprise"),
    ],
)
def test_foreign_exceptions_become_failures_of_the_right_class(
    world: World, fails: Callable[[], None], kind: type[EnginewrightError], reason: str, word: str
) -> None:
    with pytest.raises(StageError) as caught:
        world.cache().run(Writing(fails=fails))
    assert isinstance(caught.value.error, kind)
    assert caught.value.error.reason == reason
    assert word in caught.value.error.message


def test_two_builders_in_one_work_folder_end_with_one_result(world: World) -> None:
    other = Writing()

    def meanwhile() -> None:
        world.cache().run(other)

    stage = Writing(fails=meanwhile)
    assert content(world.cache().run(stage)) == "result"
    assert len(list((world.root / "work" / "stages").iterdir())) == 1
    assert not list((world.root / "work" / "scratch").iterdir())


def test_the_work_folder_may_vanish(world: World) -> None:
    stage = Writing()
    world.cache().run(stage)
    shutil.rmtree(world.root / "work")
    assert content(world.cache().run(stage)) == "result"
    assert len(stage.runs) == 1
