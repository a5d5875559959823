"""A model that drafts for another, from two checkpoints to answers behind the real server: same text, fewer steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import openvino as ov
import pytest
from tokenizers import Tokenizer

from benchmarks.models.tiny_llama import held_out_texts, trained_llama
from enginewright_api.engine_description import EngineDescription
from enginewright_api.recipe import BuildRequest, Recipe, Task, build_key
from enginewright_builder.compression.anatomy import layers_of
from enginewright_builder.compression.shrink import keep_layers
from enginewright_builder.compression.structure import load_model, save_model
from enginewright_builder.processes import Children
from enginewright_builder.servers.generating import GenerationClient
from enginewright_builder.servers.server import Server
from enginewright_serving.triton.generation_metrics import DRAFTS
from enginewright_serving.triton.generation_runner import GenerationRunner, load_generation_runner
from enginewright_serving.triton.sampling import Sampling
from tests.builder.building import Builder, states
from tests.builder.test_generation_builds import built, manifest, request
from tests.builder.tiny_llama import write_tiny_llama

pytestmark = pytest.mark.timeout(1200)

LIMITS = {"maxBatchSize": 4, "maxInputTokens": 240, "maxOutputTokens": 16}
"""Four of the longest prompts are more than a step reads."""
Answer = tuple[list[int], list[float]]
"""Token ids and their log-probabilities."""


def wanted(draft: Path) -> BuildRequest:
    """The decoder of the other builds, unquantised, with a draft."""
    source = {"objectStore": {"uri": trained_llama(steps=20).as_uri()}}
    plain = request(source, None, metric="TokenAgreement", samples=8)
    block = {"method": "DraftModel", "draftTokens": 3, "draft": {"source": {"objectStore": {"uri": draft.as_uri()}}}}
    recipe = Recipe.model_validate(plain.recipe.wire() | {"limits": LIMITS, "speculativeDecoding": block})
    key = build_key(recipe, plain.toolchain, plain.accelerator)
    return plain.model_copy(update={"recipe": recipe, "key": key})


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    root = tmp_path_factory.mktemp("machine")
    return Builder(root, root / "store")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same decoder without its first two layers: it often says the same, and often not."""
    source, into = trained_llama(steps=20), tmp_path_factory.mktemp("half")
    model = load_model(source, Task.TEXT_GENERATION)
    keep_layers(model, layers_of(model, field="layers"), [2, 3])
    save_model(model, source, into)
    return into


@pytest.fixture(scope="module")
def engine(machine: Builder, half: Path) -> Path:
    """The whole build, its gate and its benchmark."""
    asked = wanted(half)
    outcome, reports, folder = built(machine, asked)
    assert {"fetch-draft", "draft-export", "draft-quantize"} <= set(states(reports))
    assert outcome.evidence is not None
    assert outcome.evidence.quality.optimized > 0.97, "drafts change nothing that is judged"
    assert outcome.checkpoint is not None
    assert outcome.draft_checkpoint is not None
    assert (outcome.checkpoint.layers, outcome.draft_checkpoint.layers) == (4, 2)
    published = manifest(machine, asked)
    assert {f"engine/draft/openvino_model.{end}" for end in ("xml", "bin")} <= {
        file["path"] for file in published["files"]
    }
    materials = published["provenance"]["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [(item["name"], item["uri"]) for item in materials[1:-1]] == [("draft", half.as_uri())]
    assert outcome.evidence.benchmark.size_bytes > sum(
        path.stat().st_size for path in (folder / "engine").iterdir() if path.is_file()
    ), "the draft counts"
    return folder


@pytest.fixture(scope="module")
def prompts(engine: Path) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(engine / "tokenizer" / "tokenizer.json"))
    longest = LIMITS["maxInputTokens"]
    return [tokenizer.encode(text * 20).ids[: longest - 7 * number] for number, text in enumerate(held_out_texts(6))]


@pytest.fixture(scope="module")
def alone(engine: Path) -> GenerationRunner:
    return runner(engine, speculative_decoding=None, draft_entry=None)


@pytest.fixture(scope="module")
def drafted(engine: Path) -> GenerationRunner:
    return runner(engine)


def described(engine: Path) -> EngineDescription:
    return EngineDescription.model_validate_json((engine / "engine.json").read_bytes())


def runner(engine: Path, **generation: object) -> GenerationRunner:
    found = described(engine)
    assert found.generation is not None
    found = found.model_copy(update={"generation": found.generation.model_copy(update=generation)})
    return load_generation_runner(engine, found, threads=1)


def answered(
    subject: GenerationRunner, prompts: list[list[int]], *, temperature: float = 0.0, penalty: float = 0.0
) -> tuple[list[Answer], int]:
    """All prompts at the same time, and how many steps they took."""
    found: list[Answer] = [([], []) for _ in prompts]
    for key, prompt in enumerate(prompts):
        wish = Sampling(16, temperature=temperature, seed=5 + key, frequency_penalty=penalty, logprobs=True)
        subject.add(key, prompt, wish)
    steps = 0
    while subject.busy():
        steps += 1
        for news in subject.step():
            assert not news.error
            found[news.key][0].extend(news.token_ids)
            found[news.key][1].extend(news.logprobs)
    return found, steps


def test_the_draft_is_in_the_engine_with_its_weights_in_eight_bits(engine: Path) -> None:
    generation = described(engine).generation
    assert generation is not None
    assert generation.draft_entry == "draft/openvino_model.xml"
    shapes = {
        (node.get_element_type().get_type_name(), len(shape) == 2 and min(shape) > 1)
        for node in ov.Core().read_model(engine / "engine" / generation.draft_entry).get_ops()
        if node.get_type_name() == "Constant"
        for shape in [node.get_output_shape(0)]
    }
    assert {kind for kind, matrix in shapes if matrix} == {"u8"}


@pytest.mark.parametrize(("temperature", "penalty"), [(0.0, 0.0), (0.0, 2.0), (0.3, 0.0), (1.0, 0.0)])
def test_answers_are_the_models_own_in_fewer_steps(
    alone: GenerationRunner, drafted: GenerationRunner, prompts: list[list[int]], temperature: float, penalty: float
) -> None:
    """Sampled ones too: a draft counts only where the model draws the same, so a seed gives the same answer.

    Without a penalty the likeliest token is always the same one, which learning of a few seconds leads to.
    """
    before = drafted.load()
    for batch in ([prompts[0]], prompts[1:3], prompts, prompts):  # six wait for four places; the last are cached
        plain, slow = answered(alone, batch, temperature=temperature, penalty=penalty)
        found, quick = answered(drafted, batch, temperature=temperature, penalty=penalty)
        assert [tokens for tokens, _ in found] == [tokens for tokens, _ in plain]
        for (_, one), (_, other) in zip(found, plain, strict=True):
            assert one == pytest.approx(other, abs=1e-3), "of the model, not of the draft"
        if (temperature, penalty) == (0.0, 0.0):
            assert quick < 0.6 * slow
    load = drafted.load()
    accepted, places = load.accepted - before.accepted, load.drafted - before.drafted
    # At a temperature of 1 two models hardly ever draw the same.
    assert (temperature < 1.0) <= accepted <= places


def test_prompts_that_do_not_fit_one_step_change_nothing(
    alone: GenerationRunner, drafted: GenerationRunner, prompts: list[list[int]]
) -> None:
    """Together, and while others are being answered: read in parts beside a draft they came out wrong."""
    fresh = [prompt[::-1] for prompt in prompts]
    assert answered(drafted, fresh, penalty=1.0)[0] == [
        (tokens, pytest.approx(logprobs, abs=1e-3)) for tokens, logprobs in answered(alone, fresh, penalty=1.0)[0]
    ]
    fresh = [[*prompt[40:], *prompt[:40]] for prompt in prompts]
    answers: list[dict[int, list[int]]] = []
    for subject in (alone, drafted):
        found: dict[int, list[int]] = {key: [] for key in range(len(fresh))}
        for step in range(1000):
            if step < len(fresh):
                subject.add(step, fresh[step], Sampling(max_tokens=16))
            for news in subject.step() if subject.busy() else []:
                found[news.key].extend(news.token_ids)
        assert not subject.busy()
        answers.append(found)
    assert answers[0] == answers[1]


def test_a_dropped_answer_leaves_the_others_alone(
    alone: GenerationRunner, drafted: GenerationRunner, prompts: list[list[int]]
) -> None:
    answers, _ = answered(alone, [prompts[2]])
    drafted.add(50, prompts[1], Sampling(max_tokens=16))
    drafted.add(51, prompts[2], Sampling(max_tokens=16))
    kept: list[int] = []
    for step in range(100):
        if step == 2:
            drafted.drop(50)
        for news in drafted.step() if drafted.busy() else []:
            kept += news.token_ids if news.key == 51 else ()
    assert kept == answers[0][0]
    assert not drafted.busy() and drafted.load().running == 0


@pytest.mark.parametrize("late", [False, True])
def test_who_waits_is_answered_when_all_before_leave(
    alone: GenerationRunner, drafted: GenerationRunner, prompts: list[list[int]], late: bool
) -> None:
    """Whether they came before the others left, or between that and the next step."""
    wish = Sampling(max_tokens=16)
    waiting = [prompts[4], prompts[5]]
    found: dict[int, list[int]] = {74: [], 75: []}
    for key, prompt in enumerate(prompts[: LIMITS["maxBatchSize"]], start=70):
        drafted.add(key, prompt, wish)
    for key, prompt in zip(found, waiting, strict=True):
        if not late:
            drafted.add(key, prompt, wish)
    drafted.step()
    for key in range(70, 74):
        drafted.drop(key)
    for key, prompt in zip(found, waiting, strict=True):
        if late:
            drafted.add(key, prompt, wish)
    while drafted.busy():
        for news in drafted.step():
            assert not news.error
            found[news.key].extend(news.token_ids)
    assert list(found.values()) == [tokens for tokens, _ in answered(alone, waiting)[0]]


def test_scores_are_of_the_model_alone(
    alone: GenerationRunner, drafted: GenerationRunner, prompts: list[list[int]]
) -> None:
    assert drafted.score(prompts[0]) == pytest.approx(alone.score(prompts[0]), abs=1e-4)


@pytest.fixture
def server(engine: Path, tmp_path: Path) -> Iterator[Server]:
    children = Children()
    try:
        found = Server.start(engine, name="drafted", scratch=tmp_path, threads=1, children=children)
        found.wait_ready()
        yield found
    finally:
        children.close()


def test_the_server_tells_how_many_drafts_were_kept(server: Server) -> None:
    with GenerationClient(server) as client:
        (answer,) = client.generate([held_out_texts(1)[0][:100]], max_tokens=16)
    assert answer.tokens == 16
    deadline = time.monotonic() + 30
    while not (told := drafts_told(server)).get("accepted") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert 0 < told["accepted"] <= told["drafted"]


def drafts_told(server: Server) -> dict[str, float]:
    """By kind, from the server's own metrics."""
    with urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    return {
        kind: float(line.rpartition(" ")[2])
        for line in lines
        for kind in ("drafted", "accepted")
        if line.startswith(DRAFTS) and f'kind="{kind}"' in line
    }


def test_a_draft_with_other_tokens_is_refused_before_anything_is_exported(machine: Builder, tmp_path: Path) -> None:
    stranger = write_tiny_llama(tmp_path / "stranger", held_out_texts(4))
    outcome, reports, code = machine.run(wanted(stranger))
    assert (code, outcome.failure is not None) == (20, True)
    assert outcome.failure is not None
    assert outcome.failure.reason == "InvalidRecipe"
    assert "runtime.speculativeDecoding.draft.source: the draft's vocabulary" in outcome.failure.message
    assert "export" not in states(reports)


def test_a_draft_that_is_not_there_is_named_by_its_field(machine: Builder, tmp_path: Path) -> None:
    outcome, _, code = machine.run(wanted(tmp_path / "nowhere"))
    assert code == 20
    assert outcome.failure is not None
    assert (outcome.failure.stage, outcome.failure.reason) == ("fetch-draft", "SourceNotFound")
    assert outcome.failure.message.startswith("runtime.speculativeDecoding.draft.source.objectStore.uri")
