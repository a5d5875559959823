"""How often the quality gate is wrong: engines whose true drop is known, judged by the gate's own code.

    python benchmarks/gate_error_rates.py                 # about three minutes on two cores
    python benchmarks/gate_error_rates.py --runs 40       # a glance
    python benchmarks/gate_error_rates.py --exact         # error of the bound of accuracy, enumerated

Every run draws answers of a baseline and of an engine with a given true drop, and judges them as a build does: at the
default budget and confidence, first on the default number of rows, then on more where there are more. An engine
without a drop should pass; an engine with twice the budget must not.
"""

from __future__ import annotations

import argparse
import os
from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes are the two cores

import numpy as np
from numpy.typing import NDArray

from enginewright_api.evidence import EvidenceRequest, QualityEvidence, Verdict
from enginewright_api.operation_spec import Metric, Quality
from enginewright_builder.datasets.rows import Row
from enginewright_builder.gate.accuracy import count_bounds
from enginewright_builder.gate.looks import Look, planned, settled
from enginewright_builder.gate.perplexity import perplexity, perplexity_bounds
from enginewright_builder.gate.quality import Measured, compare, evidence_of

DEFAULTS = Quality()
BUDGET, SAMPLES = DEFAULTS.max_drop, DEFAULTS.samples
MANY = 16 * SAMPLES
PROMISED = 0.05

TAGS = ["O", "one", "other"]

Floats = NDArray[np.float64]
Judge = Callable[[Look], QualityEvidence]


@dataclass(frozen=True)
class Distribution:
    """Draws the answers to `rows` rows of one data set, and gives what judges the first of them."""

    name: str
    draw: Callable[[np.random.Generator, float, int], Judge]
    effort: float = 1.0
    """Share of the runs, for what takes long to judge."""


def request(metric: Metric) -> EvidenceRequest:
    """Everything at its default."""
    return EvidenceRequest.model_validate(
        {
            "dataset": {"builtin": {"name": "news-en"}},
            "metric": metric,
            "maxDrop": BUDGET,
            "confidence": DEFAULTS.confidence,
            "samples": SAMPLES,
        }
    )


def judged(metric: Metric, engine: Floats, baseline: Floats, rows: list[Row], look: Look) -> QualityEvidence:
    """As a build compares; vectors [rows, 2] and for pairs [2 · rows, 2]."""
    vectors = (values.astype(np.float32) for values in (engine, baseline))
    return compare(*vectors, rows, labels=["0", "1", "2"], request=request(metric), dataset="-", look=look)


def accuracy(
    generator: np.random.Generator, drop: float, rows: int, *, base: float, disagree: float, metric: Metric
) -> Judge:
    """Right and wrong answers whose disagreements are lost or won by chance (McNemar); three classes.

    Labels are as in an unbalanced set (0.6, 0.3, 0.1); a wrong answer names another class.
    """
    expected = generator.choice(3, rows, p=[0.6, 0.3, 0.1])
    lost_chance = (max(disagree, drop) + drop) / 2
    right_before = generator.random(rows) < base
    flips = generator.random(rows)
    lost = right_before & (flips < lost_chance / base)
    won = ~right_before & (flips < (lost_chance - drop) / (1 - base))
    wrong = (expected + generator.integers(1, 3, rows)) % 3
    before = np.eye(3)[np.where(right_before, expected, wrong)]
    after = np.eye(3)[np.where((right_before & ~lost) | won, expected, wrong)]
    texts = [Row("", label=str(label)) for label in expected]
    return lambda look: judged(metric, after[: look.samples], before[: look.samples], texts[: look.samples], look)


def cosine(generator: np.random.Generator, drop: float, rows: int, *, sigma: float) -> Judge:
    """Drops of the cosine to the baseline: lognormal, so that few texts lose most of it."""
    drops = max(drop, 1e-5) * generator.lognormal(-(sigma**2) / 2, sigma, rows)
    similar = 1 - np.minimum(drops, 2.0)
    engine = np.stack([similar, np.sqrt(1 - similar**2)], axis=1)
    baseline = np.tile([1.0, 0.0], (rows, 1))
    texts = [Row("")] * rows
    return lambda look: judged(
        Metric.COSINE_SIMILARITY, engine[: look.samples], baseline[: look.samples], texts[: look.samples], look
    )


def rank(generator: np.random.Generator, drop: float, rows: int, *, noise: float) -> Judge:
    """Similarities that follow human scores; both models err alike, and each a little on its own.

    Pearson's r of a normal pair gives Spearman's 6/π·asin(r/2); the engine's own error is set for the wanted drop.
    """
    human = generator.normal(size=rows)
    common = generator.normal(size=rows)
    own = generator.normal(size=(2, rows))

    def spearman(error: float) -> float:
        return float(6 / np.pi * np.arcsin(0.5 / np.sqrt(1 + 0.25 + error**2)))

    wanted = spearman(noise) - drop
    errors = np.linspace(noise, 2.0, 20_001)
    error = noise if drop == 0 else float(errors[bisect_left(errors, True, key=lambda e: spearman(e) <= wanted)])
    before, after = (human + 0.5 * common + size * own[one] for one, size in ((0, noise), (1, error)))
    texts = [Row("", text_pair="", score=float(score)) for score in human]

    def vectors(similarity: Floats) -> Floats:
        angle = np.arccos(np.tanh(similarity / 4))
        return np.concatenate([np.tile([1.0, 0.0], (len(angle), 1)), np.stack([np.cos(angle), np.sin(angle)], axis=1)])

    return lambda look: judged(
        Metric.SPEARMAN_CORRELATION,
        vectors(after[: look.samples]),
        vectors(before[: look.samples]),
        texts[: look.samples],
        look,
    )


def language(generator: np.random.Generator, drop: float, rows: int, *, spread: float) -> Judge:
    """Likelihoods of texts of 16 to 256 tokens: lognormal a text, the engine's off by noise that averages out."""
    tokens = generator.integers(16, 257, rows).astype(np.float64)
    before = generator.lognormal(1.0, 0.4, rows)
    after = before + np.log1p(drop) + spread * generator.standard_t(5, rows) / np.sqrt(tokens)

    def judge(look: Look) -> QualityEvidence:
        part = slice(look.samples)
        values = [perplexity(nll[part], tokens[part]) for nll in (before, after)]
        bounds = perplexity_bounds(after[part], before[part], tokens[part], look.levels)
        measured = Measured(*values, values[1] / values[0] - 1, bounds)
        return evidence_of(measured, samples=look.samples, request=request(Metric.PERPLEXITY), dataset="-")

    return judge


def tagging(
    generator: np.random.Generator, drop: float, rows: int, *, base: float, disagree: float, metric: Metric
) -> Judge:
    """Labels of the words of texts of 5 to 40 words, a third of them entities; words of one text fail together.

    How often words of a text change is drawn for the text: gamma of shape a half, so that most texts hardly change.
    For F1 only entities change, each for an entity of the other type: then F1 is the share of them that is right.
    """
    words = generator.integers(5, 41, rows)
    text = np.repeat(np.arange(rows), words)
    expected = generator.choice(3, len(text), p=[0.66, 0.17, 0.17])
    fate = generator.gamma(0.5, 2.0, rows)[text]
    lost_chance = (max(disagree, drop) + drop) / 2
    changes = expected > 0 if metric is Metric.F1 else np.ones(len(text), bool)
    right_before = ~changes | (generator.random(len(text)) < base)
    flips = generator.random(len(text))
    lost = changes & right_before & (flips < fate * lost_chance / base)
    won = ~right_before & (flips < fate * (lost_chance - drop) / (1 - base))
    wrong = 3 - expected if metric is Metric.F1 else (expected + generator.integers(1, 3, len(text))) % 3
    before = np.eye(3, dtype=np.float32)[np.where(right_before, expected, wrong)]
    after = np.eye(3, dtype=np.float32)[np.where((right_before & ~lost) | won, expected, wrong)]
    names = np.array(TAGS)[expected]
    ends = np.cumsum(words)
    texts = [Row("", word_labels=tuple(part.tolist())) for part in np.split(names, ends[:-1])]

    def judge(look: Look) -> QualityEvidence:
        seen = ends[look.samples - 1]
        return compare(
            after[:seen], before[:seen], texts[: look.samples],
            labels=TAGS, request=request(metric), dataset="-", look=look,
        )  # fmt: skip

    return judge


def binary(base: float, disagree: float, metric: Metric = Metric.ACCURACY) -> Callable[..., Judge]:
    """Accuracy or F1 at one base accuracy and rate of disagreement."""
    return partial(accuracy, base=base, disagree=disagree, metric=metric)


def words_of(base: float, disagree: float, metric: Metric) -> Callable[..., Judge]:
    """Labels of words at one share of right ones and rate of disagreement."""
    return partial(tagging, base=base, disagree=disagree, metric=metric)


DISTRIBUTIONS = (
    Distribution("Accuracy 0.97, 0.3 % disagree", binary(0.97, 0.003)),
    Distribution("Accuracy 0.90, 1 % disagree", binary(0.90, 0.01)),
    Distribution("Accuracy 0.90, 3 % disagree", binary(0.90, 0.03)),
    Distribution("Accuracy 0.70, 5 % disagree", binary(0.70, 0.05)),
    Distribution("F1 0.90, 1 % disagree", binary(0.90, 0.01, Metric.F1), 0.4),
    Distribution("Cosine, lognormal drop, sigma 0.5", partial(cosine, sigma=0.5), 0.4),
    Distribution("Cosine, lognormal drop, sigma 1.5", partial(cosine, sigma=1.5), 0.4),
    Distribution("Perplexity, 0.2 nats a token", partial(language, spread=0.2), 0.4),
    Distribution("Perplexity, 0.6 nats a token", partial(language, spread=0.6), 0.4),
    Distribution("Spearman 0.88, own error 0.02", partial(rank, noise=0.02), 0.15),
    Distribution("Words, accuracy 0.95, 1 % disagree", words_of(0.95, 0.01, Metric.ACCURACY), 0.15),
    Distribution("Words, F1 0.90, 2 % disagree", words_of(0.90, 0.02, Metric.F1), 0.15),
)


def verdict_of(judge: Judge, available: int) -> QualityEvidence:
    """The planned looks, as a build takes them."""
    evidence = None
    for look in planned(SAMPLES, available):
        evidence = judge(look)
        if settled(evidence):
            break
    assert evidence is not None
    return evidence


def passes(number: int, drop: float, available: int, runs: int) -> tuple[float, float]:
    """Share that passed, and rows looked at on average. Seeds are fixed: the same table every time."""
    distribution = DISTRIBUTIONS[number]
    found = []
    for run in range(runs):
        generator = np.random.default_rng([number, run, int(drop * 1e6), available])
        found.append(verdict_of(distribution.draw(generator, drop, available), available))
    passed = sum(evidence.verdict is Verdict.PASSED for evidence in found)
    return passed / runs, sum(evidence.samples for evidence in found) / runs


def table(runs: int) -> bool:
    """Print the rates; whether every promise holds."""
    cells = [
        (number, times * BUDGET, available)
        for number, distribution in enumerate(DISTRIBUTIONS)
        for available in (SAMPLES, MANY)
        for times in (0, 1, 2)
        if not (times == 1 and available == MANY and distribution.effort < 1)
    ]
    with ProcessPoolExecutor(2) as pool:
        jobs = {cell: pool.submit(passes, *cell, max(8, round(runs * DISTRIBUTIONS[cell[0]].effort))) for cell in cells}
        found = {cell: job.result() for cell, job in jobs.items()}
    print(f"budget {BUDGET:g}, confidence {DEFAULTS.confidence:g}, {SAMPLES} samples, {runs} runs (fewer where slow)\n")
    print("| | rows there | no drop: fails | drop = budget: passes | drop = 2 × budget: passes | rows used, no drop |")
    print("|---|---|---|---|---|---|")
    for number, distribution in enumerate(DISTRIBUTIONS):
        for available in (SAMPLES, MANY):
            none, budget, twice = (found.get((number, times * BUDGET, available)) for times in (0, 1, 2))
            assert none is not None
            assert twice is not None
            middle = "" if budget is None else f"{budget[0]:.1%}"
            print(
                f"| {distribution.name} | {available} | {1 - none[0]:.1%} | {middle} | {twice[0]:.1%} | {none[1]:.0f} |"
            )
    worst_pass = max(rate for (_, drop, _), (rate, _) in found.items() if drop == 2 * BUDGET)
    worst_fail = max(1 - rate for (_, drop, rows), (rate, _) in found.items() if drop == 0 and rows == MANY)
    print(f"\nlargest pass rate at twice the budget {worst_pass:.1%}, promised at most {PROMISED:.0%}")
    print(
        f"largest fail rate without a drop, with {MANY} rows there, {worst_fail:.1%}, promised at most {PROMISED:.0%}"
    )
    return max(worst_pass, worst_fail) <= PROMISED


def exact() -> bool:
    """Enumerate the outcomes of small sets: the chance that the bound of accuracy lies below the true drop."""
    from scipy.stats import multinomial

    print("| rows | true drop | asked for | largest error over all rates of disagreement |\n|---|---|---|---|")
    worst = 0.0
    for rows in (32, 64, 128, 256, 512, 1024):
        for level in (0.95, 0.975):
            for drop in (0.01, 0.03):
                outcomes = np.array(list(passing(rows, drop, level)), np.int64).reshape(-1, 3)
                errors = [
                    float(multinomial.pmf(outcomes, rows, [drop + q, q, 1 - drop - 2 * q]).sum())
                    for q in (0.0, 0.0003, 0.001, 0.003, 0.01, 0.02)
                ]
                worst = max(worst, max(errors) / (1 - level))
                print(f"| {rows} | {drop} | {1 - level:.3f} | {max(errors):.4f} |")
    print(f"\nlargest ratio {worst:.3f}")
    return worst <= 1.1


def passing(rows: int, drop: float, level: float) -> list[tuple[int, int, int]]:
    """Outcomes (lost, won, same) whose bound is not above `drop`, for as many won as are ever likely."""
    found = []
    for won in range(min(rows, 20 + rows // 20)):
        fewest = bisect_left(
            range(rows - won + 1), True, key=lambda lost, won=won: count_bounds(lost, won, rows, (level,))[0] > drop
        )
        found += [(lost, won, rows - lost - won) for lost in range(fewest)]
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--exact", action="store_true")
    given = parser.parse_args()
    raise SystemExit(0 if (exact() if given.exact else table(given.runs)) else 1)


if __name__ == "__main__":
    main()
