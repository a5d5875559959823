"""Checkpoints and rows that a recipe names: how they are listed, and what is said of one that cannot be fetched."""

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
from enginewright_api.recipe import BuildRequest
from enginewright_api.source import Dataset
from enginewright_builder.datasets.draw import NOTHING, draw
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
    places.scratch.mkdir(parents=True)
    cache = StageCache(places, open_store((root / "store").as_uri()), JsonLines(io.StringIO()), [])
    recipe = {"source": stored(source), "task": "Embedding", "backend": "OpenVINO", "limits": {}}
    request = {
        "key": "0" * 64, "recipe": recipe | blocks, "toolchain": {"image": "local", "digest": "d" * 64},
        "accelerator": {"acceleratorClass": "cpu", "vendor": "cpu"},
        "evidence": {
            "dataset": stored((root / "judged.txt").as_uri()), "metric": "CosineSimilarity", "maxDrop": 0.01,
            "confidence": 0.95, "samples": 8,
        },
    }  # fmt: skip
    return Materials(BuildRequest.model_validate(request), cache, places)


def rows(path: Path, *texts: str) -> dict[str, Any]:
    path.write_text("\n".join(texts))
    return stored(path.as_uri())


def listed(subject: Materials) -> dict[str, tuple[str, str]]:
    """URI and digest by name."""
    assert len({material.name for material in subject.listed}) == len(subject.listed)
    return {material.name: (material.uri, material.sha256) for material in subject.listed}


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
    digests = {name: result["sourceDigest"] for name, result in subject.cache.results.items()}
    assert len(set(digests.values())) == 4
    assert listed(subject) == {
        "source": (uris[0], digests["fetch"]),
        "draft": (uris[1], digests["fetch-draft"]),
        "student": (uris[2], digests["fetch-student"]),
        "teacher-1": (uris[3], digests["fetch-teacher-1"]),
    }


def test_a_recipe_without_others_fetches_its_source_alone(tmp_path: Path) -> None:
    subject = materials(tmp_path, checkpoint(tmp_path / "source", 0))
    source = subject.source()
    assert (subject.draft(), subject.student(), subject.teachers(source)) == (None, None, ())
    assert list(listed(subject)) == ["source"]


def test_one_checkpoint_in_two_places_is_copied_once(tmp_path: Path) -> None:
    uri = checkpoint(tmp_path / "source", 0)
    subject = materials(tmp_path, uri, **distilled(uri))
    source = subject.source()
    assert subject.teachers(source) == (source,)


def test_rows_are_listed_as_they_are_used(tmp_path: Path) -> None:
    judged = rows(tmp_path / "judged.txt", "one row", "another row")
    taught = rows(tmp_path / "taught.txt", "a row to learn from", "one row", "one more to learn from")
    measured = rows(tmp_path / "measured.txt", *(f"row number {number}" for number in range(9)))
    quantization = {"format": "INT8", "method": "MinMax", "calibration": {"samples": 4, "dataset": measured}}
    blocks = {**distilled("self"), "training": taught, "quantization": quantization}
    subject = materials(tmp_path, checkpoint(tmp_path / "source", 0), **blocks)
    evaluation = draw(Dataset.model_validate(judged), "evaluation", subject.places)
    asked = subject.request.recipe.quantization
    assert asked is not None
    calibration, _ = subject.calibration(asked, evaluation)
    training = subject.training(evaluation)
    assert (len(calibration.rows), len(training.rows)) == (4, 2)
    assert listed(subject) == {
        "calibration-rows": ((tmp_path / "measured.txt").as_uri(), calibration.digest),
        "training-rows": ((tmp_path / "taught.txt").as_uri(), training.digest),
    }


def test_rows_of_the_gate_are_listed_where_they_shape_the_engine(tmp_path: Path) -> None:
    judged = rows(tmp_path / "judged.txt", *(f"row number {number}" for number in range(9)))
    blocks = {**distilled("self"), "quantization": {"format": "INT8", "method": "Dynamic"}}
    subject = materials(tmp_path, checkpoint(tmp_path / "source", 0), **blocks)
    asked = subject.request.recipe.quantization
    assert asked is not None
    assert subject.calibration(asked, NOTHING) == (NOTHING, 0)
    training = subject.training(draw(Dataset.model_validate(judged), "evaluation", subject.places).first(3))
    assert listed(subject) == {"training-rows": ((tmp_path / "judged.txt").as_uri(), training.digest)}


def test_a_recipe_that_looks_at_no_rows_lists_none(tmp_path: Path) -> None:
    subject = materials(tmp_path, checkpoint(tmp_path / "source", 0))
    assert subject.training(NOTHING) == NOTHING
    assert subject.listed == []


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
