"""Which checkpoints a recipe names, and what is said of one that cannot be fetched."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from enginewright_api.errors import DeterministicError, TransientError
from enginewright_api.recipe import Recipe
from enginewright_builder.failures import StageError
from enginewright_builder.materials import Materials
from enginewright_builder.places import Places
from enginewright_builder.progress import JsonLines
from enginewright_builder.sources.field import told_of
from enginewright_builder.stages.cache import StageCache
from enginewright_store import open_store

TEACHERS = "optimization.distillation.teachers"
STUDENT = "optimization.distillation.student.source"
DRAFT = "runtime.speculativeDecoding.draft.source"


def checkpoint(folder: Path, value: float) -> str:
    """URI of a checkpoint; equal values make equal ones."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(folder / "tokenizer.json"))
    save_file({"w": np.full((2, 2), value, np.float32)}, folder / "model.safetensors")
    return folder.as_uri()


def stored(uri: str) -> dict[str, Any]:
    return {"objectStore": {"uri": uri}}


def materials(root: Path, source: str, **blocks: Any) -> Materials:
    places = Places(root / "work", root, root, root)
    cache = StageCache(places, open_store((root / "store").as_uri()), JsonLines(io.StringIO()), [])
    recipe = {"source": stored(source), "task": "Embedding", "backend": "OpenVINO", "limits": {}}
    return Materials(Recipe.model_validate(recipe | blocks), cache, places)


def distilled(*teachers: str, student: str | None = None) -> dict[str, Any]:
    learner = {"layers": 3} if student is None else {"source": stored(student)}
    return {"distillation": {"student": learner, "teachers": list(teachers)}}


def drafted(source: str) -> dict[str, Any]:
    return {"speculativeDecoding": {"method": "DraftModel", "draft": {"source": stored(source)}}}


def fetch_all(subject: Materials) -> None:
    source = subject.source()
    subject.draft()
    subject.student()
    subject.teachers(source)


def test_each_checkpoint_is_fetched_under_a_name_of_its_own(tmp_path: Path) -> None:
    uris = [checkpoint(tmp_path / name, value) for value, name in enumerate(("source", "draft", "student", "teacher"))]
    blocks = distilled("self", uris[3], student=uris[2]) | drafted(uris[1])
    subject = materials(tmp_path, uris[0], **blocks)
    source = subject.source()
    found = [subject.draft(), subject.student(), *subject.teachers(source)]
    assert [output.key for output in found if output is not None].count(source.key) == 1, "the teacher `self`"
    assert set(subject.cache.results) == {"fetch", "fetch-draft", "fetch-student", "fetch-teacher-1"}
    assert len({result["sourceDigest"] for result in subject.cache.results.values()}) == 4


def test_a_recipe_without_others_fetches_its_source_alone(tmp_path: Path) -> None:
    subject = materials(tmp_path, checkpoint(tmp_path / "source", 0))
    source = subject.source()
    assert (subject.draft(), subject.student(), subject.teachers(source)) == (None, None, ())


def test_one_checkpoint_in_two_places_is_copied_once(tmp_path: Path) -> None:
    uri = checkpoint(tmp_path / "source", 0)
    subject = materials(tmp_path, uri, **distilled(uri))
    source = subject.source()
    assert subject.teachers(source) == (source,)


@pytest.mark.parametrize(
    ("blocks", "stage", "begins"),
    [
        (drafted("file:///no/draft"), "fetch-draft", f"{DRAFT}.objectStore.uri file:///no/draft: no such folder"),
        (
            distilled("self", student="file:///no/student"),
            "fetch-student",
            f"{STUDENT}.objectStore.uri file:///no/student: no such folder",
        ),
        (
            distilled("self", "file:///no/teacher"),
            "fetch-teacher-1",
            f"{TEACHERS}[1]: file:///no/teacher: no such folder",
        ),
        (
            distilled("package:not-installed==1.0"),
            "fetch-teacher-0",
            f"{TEACHERS}[0]: not-installed is not installed where the builder runs",
        ),
        (
            distilled("s3://bucket/model.zip"),
            "fetch-teacher-0",
            f"{TEACHERS}[0]: s3://bucket/model.zip is an archive",
        ),
    ],
)
def test_what_cannot_be_fetched_is_named_by_its_field(
    tmp_path: Path, blocks: dict[str, Any], stage: str, begins: str
) -> None:
    subject = materials(tmp_path, checkpoint(tmp_path / "source", 0), **blocks)
    with pytest.raises(StageError) as caught:
        fetch_all(subject)
    assert caught.value.stage == stage
    assert caught.value.error.message.startswith(begins)
    assert "source.objectStore" not in caught.value.error.message.removeprefix(begins)


def test_a_checkpoint_that_cannot_be_built_from_is_named_by_its_field(tmp_path: Path) -> None:
    broken = checkpoint(tmp_path / "student", 1)
    (tmp_path / "student" / "config.json").write_text("{}")
    subject = materials(tmp_path, checkpoint(tmp_path / "source", 0), **distilled("self", student=broken))
    with pytest.raises(StageError) as caught:
        fetch_all(subject)
    assert caught.value.error.message.startswith(f"{STUDENT}: config.json: ")


@pytest.mark.parametrize(
    ("field", "message", "told"),
    [
        ("source", "source.huggingFace: a/b: no", "source.huggingFace: a/b: no"),
        (STUDENT, "source.huggingFace: a/b: no", f"{STUDENT}.huggingFace: a/b: no"),
        (STUDENT, "model.safetensors: cut off", f"{STUDENT}: model.safetensors: cut off"),
        (f"{TEACHERS}[3]", "source.huggingFace: a/b: no", f"{TEACHERS}[3]: a/b: no"),
        (f"{TEACHERS}[3]", "source.huggingFace.revision: 'x' is", f"{TEACHERS}[3]: 'x' is"),
        (f"{TEACHERS}[3]", "model.safetensors: cut off", f"{TEACHERS}[3]: model.safetensors: cut off"),
    ],
)
@pytest.mark.parametrize("kind", [DeterministicError, TransientError])
def test_errors_keep_class_and_reason(
    field: str, message: str, told: str, kind: type[DeterministicError] | type[TransientError]
) -> None:
    with pytest.raises(kind) as caught, told_of(field):
        raise kind("Why", message)
    assert (caught.value.reason, caught.value.message) == ("Why", told)
