"""The lines of all programs."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from enginewright_api import logs
from enginewright_api.logs import JsonFormatter, about, facts, learnt, tell_settings


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What `logger` writes."""
    found = io.StringIO()
    handler = logging.StreamHandler(found)
    handler.setFormatter(JsonFormatter())
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    yield found
    logger.handlers[:] = []


logger = logging.getLogger("enginewright.test")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_object_with_the_fields_of_the_call(stream: io.StringIO) -> None:
    logger.warning("of %s\nand more", "x", extra={"figure": 3, "path": stream})
    (line,) = lines(stream)
    assert (line["message"], line["level"], line["logger"]) == ("of x\nand more", "warning", "enginewright.test")
    assert line["figure"] == 3 and line["time"].endswith("+00:00")


def test_an_error_is_told_with_its_trace_on_the_same_line(stream: io.StringIO) -> None:
    try:
        _ = 1 // 0
    except ZeroDivisionError:
        logger.exception("failed")
    (line,) = lines(stream)
    assert "ZeroDivisionError" in line["trace"]


def test_settings_are_shown_whatever_the_level_is(stream: io.StringIO) -> None:
    logger.setLevel(logging.ERROR)
    tell_settings(logger, {"workers": 8})
    (line,) = lines(stream)
    assert (line["message"], line["settings"], line["level"]) == ("settings", {"workers": 8}, "info")


async def test_what_a_task_is_about_is_its_own(stream: io.StringIO) -> None:
    async def visit(name: str) -> None:
        with about(model=name):
            await asyncio.sleep(0)
            learnt({"generation": len(name)})
            await asyncio.gather(asyncio.to_thread(logger.info, "in a thread"), asyncio.sleep(0))

    await asyncio.gather(visit("a"), visit("bb"))
    logger.info("after")
    learnt({"generation": 9})
    logger.info("still")
    told = lines(stream)
    assert sorted((line["model"], line["generation"]) for line in told[:2]) == [("a", 1), ("bb", 2)]
    assert all("model" not in line and "generation" not in line for line in told[2:])


def test_what_a_process_is_about_is_told_by_all_its_threads(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_PROCESS", {})
    logs.throughout(buildKey="0123")
    thread = threading.Thread(target=logger.info, args=("there",))
    thread.start()
    thread.join()
    assert lines(stream)[0]["buildKey"] == "0123"


OWNERS = [
    {"kind": "OptimizedModel", "name": "a"},
    {"kind": "Other", "name": "x"},
    {"kind": "OptimizedModel", "name": "b"},
]
MODEL = {"kind": "OptimizedModel", "metadata": {"name": "m", "namespace": "n", "generation": 4}}
BUILD = {"kind": "EngineBuild", "metadata": {"name": "e", "namespace": "n"}, "spec": {"key": "f" * 64}}


@pytest.mark.parametrize(
    ("manifest", "found"),
    [
        (MODEL, {"model": "n/m", "generation": 4}),
        (MODEL | {"status": {"target": None, "active": {}}, "spec": None}, {"model": "n/m", "generation": 4}),
        (
            MODEL | {"status": {"active": {"engineBuild": "eb-0a"}}},
            {"model": "n/m", "generation": 4, "buildKey": "0a"},
        ),
        (
            MODEL | {"status": {"active": {"engineBuild": "eb-0a"}, "target": {"engineBuild": "eb-0b"}}},
            {"model": "n/m", "generation": 4, "buildKey": "0b"},
        ),
        (MODEL | {"status": {"target": {"engineBuild": 7}}}, {"model": "n/m", "generation": 4}),
        (BUILD, {"generation": 1, "buildKey": "f" * 16}),
        (
            BUILD | {"metadata": {"namespace": "n", "ownerReferences": OWNERS}},
            {"model": "n/a, n/b", "generation": 1, "buildKey": "f" * 16},
        ),
    ],
)
def test_what_a_line_says_of_an_object(manifest: dict[str, Any], found: dict[str, object]) -> None:
    assert facts(manifest) == found
