"""One build: the stages in order, what runs beside what, and what comes of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from enginewright_api.engine_description import EngineDescription
from enginewright_api.errors import DeterministicError
from enginewright_api.evidence import BenchmarkEvidence, QualityEvidence
from enginewright_api.footprint import check_will_fit, footprint
from enginewright_api.geometry import CheckpointSizes, Geometry
from enginewright_api.manifest import Evidence
from enginewright_api.optimization import Format, QuantizationMethod
from enginewright_api.outcome import ArtifactReference
from enginewright_api.recipe import BuildRequest, Task
from enginewright_api.serving_spec import Backend
from enginewright_api.support import toolchain_of, unavailable, unavailable_evidence
from enginewright_builder.datasets.draw import NOTHING, Drawn, draw
from enginewright_builder.datasets.judged import check_kind, judged
from enginewright_builder.description import EAGER, describe, describe_engine
from enginewright_builder.drafting import check_draft, describe_draft, geometry_of_draft
from enginewright_builder.gate.looks import Look, most_rows, planned, settled
from enginewright_builder.gate.quality import compare
from enginewright_builder.materials import FETCH_DRAFT, Materials
from enginewright_builder.places import Places
from enginewright_builder.positions import check_limits
from enginewright_builder.resources import Capacity, check_fits
from enginewright_builder.servers.pair import Pair
from enginewright_builder.sources.checkpoint import Checkpoint, inspect
from enginewright_builder.stages.cache import StageCache
from enginewright_builder.stages.compress import Compile, Export, Quantize
from enginewright_builder.stages.fetch import FETCH
from enginewright_builder.stages.measure import ANSWERS, Baseline, Benchmark, Reference, Verify
from enginewright_builder.stages.publish import Package, Publish, Restore, find_published, reference
from enginewright_builder.stages.stage import Output
from enginewright_builder.stages.transform import Settings, Transform
from enginewright_builder.toolchain.client import Toolchain, Toolchains
from enginewright_builder.toolchain.environments import DEFAULT
from enginewright_store.artifact import Published, read_evidence, write_evidence
from enginewright_store.signing import SigningKey
from enginewright_store.store import Store


@dataclass(frozen=True, slots=True)
class Built:
    """What a build ends with."""

    artifact: ArtifactReference
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Build:
    """Everything one build works with."""

    request: BuildRequest
    store: Store
    places: Places
    capacity: Capacity
    cache: StageCache
    materials: Materials
    toolchains: Toolchains
    servers: Pair
    threads: int
    seconds_a_shape: float
    signing_key: SigningKey | None

    def run(self) -> Built:
        """Raises StageError, or DeterministicError for what no stage is needed to refuse."""
        started = datetime.now(UTC)
        refuse_unavailable(self.request)
        published = find_published(self.store, self.request.key)
        if published is not None:
            evidence = self._known_evidence(published)
            if evidence is not None:
                return Built(reference(self.store, published), evidence)
        recipe = self.request.recipe
        source = self.materials.source()
        checkpoint = inspect(source.folder)
        check_limits(checkpoint.config, recipe)
        geometry = Geometry.of(checkpoint.config)
        self.cache.tell_sizes(FETCH, checkpoint=CheckpointSizes.of(geometry))
        description = describe(checkpoint, recipe, recipe.backend)
        drafter = self._drafter(checkpoint, description)
        self._check_memory(geometry, checkpoint.float32_bytes, drafter)
        baseline = self.cache.run(Baseline(source, describe(checkpoint, recipe, Backend.TORCH)))
        evaluation = draw(self.request.evidence.dataset, "evaluation", self.places)
        material = self._judged_on(evaluation, description, source)
        looks = planned(self.request.evidence.samples, len(material.rows))
        rows = material.first(looks[0].samples)
        with ThreadPoolExecutor(1, thread_name_prefix="reference") as beside:
            # Nothing is timed yet, so the baseline answers while the toolchain works.
            answered = beside.submit(self._reference, baseline, description, rows)
            if published is None:
                engine = self._compressed(source, evaluation, drafter)
            else:
                engine = self.cache.run(Restore(published, self.store))
            self.servers.start("engine", engine.folder)
            first = answered.result()
        quality = self._compared(engine, first, description, rows, looks[0])
        for look in looks[1:]:
            if settled(quality):
                break
            rows = material.first(look.samples)
            answers = self._reference(baseline, description, rows)
            quality = self._compared(engine, answers, description, rows, look)
        evidence = Evidence(
            request_digest=self.request.evidence.digest,
            quality=quality,
            benchmark=self._benchmark(engine, baseline, description, material),
        )
        with ThreadPoolExecutor(1, thread_name_prefix="stop") as beside:
            stopped = beside.submit(self.servers.stop)  # takes seconds, and what follows hardly any processor
            if published is None:
                built = self._published(source, engine, description, evidence, started)
            else:
                write_evidence(self.store, self.request.key, evidence)
                built = Built(reference(self.store, published), evidence)
            stopped.result()
        return built

    def _judged_on(self, evaluation: Drawn, description: EngineDescription, source: Output) -> Drawn:
        """Evaluation rows as the task's metrics take them."""
        task, limit = description.task, description.limits.max_input_tokens
        if task is Task.RERANKING:
            return evaluation.by_query()
        if task is Task.TOKEN_CLASSIFICATION:
            asked = evaluation.first(most_rows(self.request.evidence.samples))
            return judged(asked, description.labels, source.folder, max_tokens=limit)
        check_kind(evaluation, task)
        return evaluation

    def _known_evidence(self, published: Published) -> Evidence | None:
        if published.manifest.evidence.request_digest == self.request.evidence.digest:
            return published.manifest.evidence
        return read_evidence(self.store, self.request.key, self.request.evidence)

    def _drafter(self, checkpoint: Checkpoint, description: EngineDescription) -> Output | None:
        """The model that drafts, fetched and checked; None where none does."""
        generation = description.generation
        if generation is None:
            return None
        found = self.materials.draft()
        if found is not None:
            draft = inspect(found.folder)
            check_draft(draft, checkpoint, self.request.recipe, generation.max_context_tokens)
            self.cache.tell_sizes(FETCH_DRAFT, draft_checkpoint=CheckpointSizes.of(geometry_of_draft(draft)))
        return found

    def _check_memory(self, geometry: Geometry, float32_bytes: int, drafter: Output | None) -> None:
        """Of what is built, then of the build. Raises DeterministicError WillNotFit, BuildWillNotFit."""
        beside = inspect(drafter.folder) if drafter is not None else None
        draft = geometry_of_draft(beside) if beside is not None else None
        check_will_fit(footprint(geometry, self.request.recipe, draft), self.request.accelerator)
        check_fits(float32_bytes + (beside.float32_bytes if beside is not None else 0), self.capacity)

    def _compressed(self, source: Output, evaluation: Drawn, drafter: Output | None) -> Output:
        recipe = self.request.recipe
        source = self._transformed(source, evaluation)
        quantization = self.request.recipe.quantization
        learns = quantization is not None and quantization.method is QuantizationMethod.QAT
        if quantization is not None and learns:
            rows, _ = self.materials.calibration(quantization, evaluation)
            source = self._transform("learn", source, quantization, rows)
        description = describe_engine(inspect(source.folder), recipe, self.request.accelerator.architecture)
        toolchain = self._toolchain(toolchain_of(recipe.task, recipe.backend), "export")
        if description.entry == EAGER:
            return self.cache.run(Compile(source, source, description, evaluation, toolchain))
        graph = self.cache.run(Export(source, description, self.request.toolchain.digest, toolchain))
        if quantization is not None and quantization.format is not Format.NONE:
            # What learnt its scales is not measured again.
            calibration, leaked = (NOTHING, 0) if learns else self.materials.calibration(quantization, evaluation)
            graph = self.cache.run(Quantize(source, graph, description, quantization, calibration, leaked, toolchain))
        draft = self._draft(drafter, toolchain) if drafter is not None else None
        return self.cache.run(Compile(source, graph, description, evaluation, toolchain, draft))

    def _draft(self, drafter: Output, toolchain: Toolchain) -> Output:
        """Graph of the model that drafts, its weights in 8 bits."""
        recipe, digest = self.request.recipe, self.request.toolchain.digest
        description = describe_draft(inspect(drafter.folder), recipe)
        graph = self.cache.run(Export(drafter, description, digest, toolchain, name="draft-export"))
        weights = recipe.draft_weights
        return self.cache.run(
            Quantize(drafter, graph, description, weights, NOTHING, 0, toolchain, name="draft-quantize")
        )

    def _transformed(self, source: Output, evaluation: Drawn) -> Output:
        """Distilled, pruned, factorised: in this order, whatever of it the recipe has."""
        recipe = self.request.recipe
        rows = self.materials.training(evaluation)
        distillation = recipe.distillation
        if distillation is not None:
            learner = self.materials.student() or source
            source = self._transform("distil", learner, distillation, rows, self.materials.teachers(source))
        if recipe.pruning is not None:
            source = self._transform("prune", source, recipe.pruning, rows)
        if recipe.low_rank is not None:
            source = self._transform("factorize", source, recipe.low_rank, NOTHING)
        if recipe.early_exit is not None:
            source = self._transform("exit", source, recipe.early_exit, rows)
        return source

    def _transform(
        self, name: str, checkpoint: Output, settings: Settings, rows: Drawn, teachers: tuple[Output, ...] = ()
    ) -> Output:
        stage = Transform(
            name=name,
            checkpoint=checkpoint,
            settings=settings,
            task=self.request.recipe.task,
            rows=rows,
            toolchain_digest=self.request.toolchain.digest,
            toolchain=self._toolchain(DEFAULT, name),
            told=partial(self.cache.tell, name),
            teachers=teachers,
        )
        return self.cache.run(stage)

    def _toolchain(self, name: str, stage: str) -> Toolchain:
        return self.toolchains.of(name, partial(self.cache.tell, stage))

    def _reference(self, baseline: Output, description: EngineDescription, rows: Drawn) -> Output:
        answered = self.cache.run(Reference(baseline, rows, description, self.servers, self.request.toolchain.digest))
        # The server of the benchmark, with all threads; it loads while the toolchain finishes.
        self.servers.start("baseline", baseline.folder)
        return answered

    def _compared(
        self, engine: Output, answered: Output, description: EngineDescription, rows: Drawn, look: Look
    ) -> QualityEvidence:
        import numpy as np

        verified = self.cache.run(
            Verify(engine, answered, rows, description, not self.request.recipe.exact, self.servers)
        )
        return compare(
            np.load(verified.folder / ANSWERS, allow_pickle=False),
            np.load(answered.folder / ANSWERS, allow_pickle=False),
            rows.rows,
            labels=description.labels,
            request=self.request.evidence,
            dataset=f"{rows.name}@{rows.digest[:16]}",
            look=look,
        )

    def _benchmark(
        self, engine: Output, baseline: Output, description: EngineDescription, material: Drawn
    ) -> BenchmarkEvidence:
        def told(fraction: float, message: str) -> None:
            self.cache.tell("benchmark", fraction, message)

        stage = Benchmark(
            engine, baseline, description, material, self.threads, self.seconds_a_shape, self.servers, told
        )
        return BenchmarkEvidence.model_validate(self.cache.run(stage).result["evidence"])

    def _published(
        self, source: Output, engine: Output, description: EngineDescription, evidence: Evidence, started: datetime
    ) -> Built:
        stages, results = self.cache.ended, dict(self.cache.results)
        materials = tuple(self.materials.listed)
        package = self.cache.run(
            Package(self.request, description, source, materials, engine, evidence, stages, results, started)
        )
        done = self.cache.run(Publish(package, self.store, self.signing_key)).result
        return Built(ArtifactReference.model_validate(done["artifact"]), Evidence.model_validate(done["evidence"]))


def refuse_unavailable(request: BuildRequest) -> None:
    """Raises DeterministicError FeatureNotAvailable for the first field that nothing implements."""
    found = unavailable(request.recipe, request.accelerator)
    found += unavailable_evidence(request.recipe.task, request.evidence)
    if found:
        field, sentence = found[0]
        raise DeterministicError("FeatureNotAvailable", f"{field}: {sentence}")
