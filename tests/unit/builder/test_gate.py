"""The gate: bounds that hold, verdicts that follow from them, sanity that no metric hides."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from enginewright_api.errors import DeterministicError
from enginewright_api.evidence import EvidenceRequest, QualityEvidence, Verdict, judge, samples_missing
from enginewright_builder.datasets.rows import Row
from enginewright_builder.gate.accuracy import binary_bounds, count_bounds
from enginewright_builder.gate.bounds import (
    CONFIDENCES,
    bound_at,
    mean_bounds,
    rounded_up,
    statistic_bounds,
)
from enginewright_builder.gate.looks import most_rows, planned, settled
from enginewright_builder.gate.quality import compare, cosines, macro_f1, rank_correlation
from enginewright_builder.gate.sanity import check_equal, check_finite


def request(metric: str = "CosineSimilarity", max_drop: float = 0.01, confidence: float = 0.95) -> EvidenceRequest:
    return EvidenceRequest.model_validate(
        {
            "dataset": {"builtin": {"name": "news-en"}},
            "metric": metric,
            "maxDrop": max_drop,
            "confidence": confidence,
            "samples": 512,
        }
    )


def noisy(rows: int, noise: float, seed: int = 1) -> tuple[Any, Any]:
    """Baseline vectors and an engine's that are off by some noise."""
    generator = np.random.default_rng(seed)
    baseline = generator.normal(size=(rows, 32)).astype(np.float32)
    return baseline, (baseline + noise * generator.normal(size=baseline.shape)).astype(np.float32)


def judged(baseline: Any, engine: Any, given: EvidenceRequest | None = None, rows: int = 0) -> QualityEvidence:
    texts = [Row(str(number)) for number in range(rows or len(baseline))]
    return compare(engine, baseline, texts, labels=[], request=given or request(), dataset="test")


def test_mean_bounds_agree_with_scipys_bootstrap() -> None:
    drops = np.random.default_rng(3).gamma(0.7, 0.01, 300)
    ours = mean_bounds(drops)
    for confidence in (0.8, 0.95, 0.99):
        theirs = stats.bootstrap(
            (drops,), np.mean, confidence_level=confidence, alternative="less", n_resamples=4999, method="BCa", rng=5
        )
        assert bound_at(ours, confidence) == pytest.approx(theirs.confidence_interval.high, rel=0.03)


def test_the_bound_holds_as_often_as_it_says() -> None:
    """95 % bounds of a skewed drop lie above the true mean in about 95 of 100 samples."""
    generator = np.random.default_rng(7)
    true_mean = 0.5 * 0.01
    held = sum(bound_at(mean_bounds(generator.gamma(0.5, 0.01, 200)), 0.95) >= true_mean for _ in range(200))
    assert 0.90 <= held / 200 <= 0.99


@given(st.lists(st.floats(0, 2), min_size=2, max_size=60))
@example([0.0, 1.12, 0.85])
def test_bounds_rise_with_confidence_and_stay_within_what_was_seen(drops: list[float]) -> None:
    bounds = mean_bounds(np.array(drops))
    assert len(bounds) == len(CONFIDENCES)
    assert bounds == sorted(bounds)
    assert min(drops) - 1e-9 <= bounds[0] <= bounds[-1] <= max(drops) + 1e-9
    assert all(up >= bound * (1 - 1e-15) for up, bound in zip(rounded_up(bounds), bounds, strict=True))


@pytest.mark.parametrize(
    ("rows", "lost", "won", "low", "high"),
    [
        (512, 0, 0, 0.0, 0.0085),
        (40, 0, 0, 0.05, 0.12),
        (512, 10, 10, 0.0, 0.03),
        (512, 51, 0, 0.10, 0.14),
    ],
)
def test_bounds_of_right_and_wrong_answers(rows: int, lost: int, won: int, low: float, high: float) -> None:
    baseline, engine = np.ones(rows, bool), np.ones(rows, bool)
    engine[:lost] = False
    baseline[lost : lost + won] = False
    assert low <= bound_at(binary_bounds(baseline, engine), 0.95) <= high


def test_binary_bounds_are_tangos_interval() -> None:
    """Airway hyper-responsiveness before and after transplantation: Fagerland, Lydersen, Laake (2014), -0.517 … -0.026.

    Below one half a bound is a lower one, which nothing holds up.
    """
    assert count_bounds(1, 7, 21, levels=(0.025,))[0] == pytest.approx(-0.517, abs=5e-4)
    assert count_bounds(7, 1, 21, levels=(0.025,))[0] == pytest.approx(0.026, abs=5e-4)


@pytest.mark.parametrize("lost", [0, 1, 4])
def test_the_binary_bound_is_never_below_the_exact_binomial_one_when_nothing_was_won(lost: int) -> None:
    baseline, engine = np.ones(100, bool), np.ones(100, bool)
    engine[:lost] = False
    exact = stats.binomtest(lost, 100, alternative="less").proportion_ci(0.95, method="exact").high
    assert exact - 1e-9 <= bound_at(binary_bounds(baseline, engine), 0.95) <= exact * 1.1


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 400))
def test_binary_bounds_rise_with_confidence_and_with_losses(lost: int, won: int, same: int) -> None:
    rows = lost + won + same + 1
    bounds = count_bounds(lost, won, rows)
    assert bounds == sorted(bounds)
    assert (lost - won) / rows - 1e-9 <= bounds[0] <= bounds[-1] <= 1.0
    assert bound_at(count_bounds(lost + 1, won, rows), 0.95) >= bound_at(bounds, 0.95)


@pytest.mark.parametrize(
    ("noise", "rows", "verdict"),
    [
        (0.01, 200, Verdict.PASSED),
        (0.5, 200, Verdict.FAILED),
        (0.137, 8, Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts_of_embeddings(noise: float, rows: int, verdict: Verdict) -> None:
    baseline, engine = noisy(rows, noise, seed=4)
    found = judged(baseline, engine)
    assert found.verdict is verdict, (found.drop, found.drop_upper_bound)
    assert found.minimum is not None
    assert found.minimum <= found.optimized <= found.baseline == 1.0
    assert found.samples == rows


@pytest.mark.parametrize(
    ("rows", "drop", "level"), [(60, 0.05, 0.95), (300, 0.01, 0.95), (300, 0.03, 0.975), (512, 0.01, 0.975)]
)
def test_the_binary_bound_is_wrong_as_rarely_as_it_says(rows: int, drop: float, level: float) -> None:
    """Enumerated, not simulated: over all outcomes, at every rate of disagreement, when the true drop is `drop`."""
    passing = [
        (lost, won)
        for won in range(36)
        for lost in range(
            bisect_left(range(rows - won + 1), True, key=lambda lost: count_bounds(lost, won, rows, (level,))[0] > drop)
        )
    ]
    outcomes = np.array([(lost, won, rows - lost - won) for lost, won in passing])
    for only_engine in (0.0, 0.0005, 0.002, 0.01, 0.03):
        chances = [drop + only_engine, only_engine, 1 - drop - 2 * only_engine]
        assert stats.multinomial.pmf(outcomes, rows, chances).sum() <= 1.1 * (1 - level)


@given(st.floats(0.0, 0.3), st.integers(50, 99), st.floats(0.0, 0.1))
def test_stored_evidence_is_judged_as_it_would_be_measured(noise: float, percent: int, max_drop: float) -> None:
    """Another budget or confidence needs no second measurement."""
    baseline, engine = noisy(40, noise)
    confidence = percent / 100
    measured = judged(baseline, engine, request(max_drop=max_drop, confidence=confidence))
    stored = judged(baseline, engine)
    assert judge(stored, max_drop=max_drop, confidence=confidence) is measured.verdict


def test_accuracy_is_judged_on_labels_by_name_or_number() -> None:
    rows = [Row("x", label="good"), Row("x", label="0"), Row("x", label="bad"), Row("x", label="bad")]
    labels = ["good", "bad"]
    baseline = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    engine = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], np.float32)
    found = compare(engine, baseline, rows, labels=labels, request=request("Accuracy"), dataset="t")
    assert (found.baseline, found.optimized, found.drop) == (1.0, 0.75, 0.25)
    assert found.verdict is Verdict.FAILED
    same = compare(baseline, baseline, rows, labels=labels, request=request("Accuracy"), dataset="t")
    assert same.verdict is Verdict.INCONCLUSIVE, "four rows prove nothing"
    with pytest.raises(DeterministicError, match="ugly"):
        compare(engine, baseline, [Row("x", label="ugly")] * 4, labels=labels, request=request("F1"), dataset="t")


def test_f1_is_the_mean_over_classes() -> None:
    said, expected = np.array([0, 0, 1, 1, 2]), np.array([0, 0, 1, 0, 3])
    counts = np.array([[1, 1, 1, 1, 0], [3, 0, 0, 0, 2], [1, 1, 1, 1, 1]])
    theirs = [f1_score(expected.repeat(count), said.repeat(count), average="macro") for count in counts]
    assert macro_f1(said, expected, counts) == pytest.approx(theirs)
    assert theirs[0] == pytest.approx((4 / 5 + 2 / 3) / 2)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)), min_size=4, max_size=30))
def test_rank_correlation_is_scipys(rows: list[tuple[int, int, int]]) -> None:
    left, right, counts = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    found = rank_correlation(left, right, np.stack([np.ones(len(rows)), counts]))
    for value, times in zip(found, (np.ones(len(rows), int), counts.astype(int)), strict=True):
        pair = left.repeat(times), right.repeat(times)
        if len(pair[0]) > 1 and np.ptp(pair[0]) and np.ptp(pair[1]):
            assert value == pytest.approx(stats.spearmanr(*pair).statistic, abs=1e-9)
        else:
            assert value == 0.0


def test_spearman_is_measured_on_pairs() -> None:
    generator = np.random.default_rng(2)
    left = generator.normal(size=(60, 16))
    closeness = np.linspace(0.05, 3.0, 60)
    right = left + closeness[:, None] * generator.normal(size=left.shape)
    rows = [Row(str(i), text_pair=str(i), score=float(-closeness[i])) for i in range(60)]
    baseline = np.concatenate([left, right]).astype(np.float32)
    given = request("SpearmanCorrelation", max_drop=0.05)
    found = compare(baseline, baseline, rows, labels=[], request=given, dataset="t")
    expected = stats.spearmanr(cosines(baseline[:60], baseline[60:]), -closeness).statistic
    assert found.baseline == pytest.approx(expected, abs=1e-6)
    assert (found.drop, found.verdict) == (0.0, Verdict.PASSED)
    ruined = baseline.copy()
    ruined[60:] = ruined[60:][::-1]
    assert compare(ruined, baseline, rows, labels=[], request=given, dataset="t").verdict is Verdict.FAILED
    with pytest.raises(DeterministicError, match="textPair and score"):
        compare(baseline, baseline, [Row("x")] * 60, labels=[], request=given, dataset="t")


def test_bounds_of_any_statistic_are_wider_than_nothing() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.2, 80)
    bounds = statistic_bounds(lambda counts: counts @ values / counts.sum(axis=1), 80)
    assert bounds[0] < bounds[-1]
    assert bound_at(bounds, 0.95) == pytest.approx(bound_at(mean_bounds(values), 0.95), abs=0.02)


@pytest.mark.parametrize(
    ("poison", "reason"),
    [(np.nan, "NotFinite"), (np.inf, "NotFinite"), (None, "ConstantOutput")],
)
def test_sanity(poison: float | None, reason: str) -> None:
    vectors, _ = noisy(10, 0.0)
    check_finite(vectors, who="the engine")
    if poison is None:
        vectors[:] = vectors[0]
    else:
        vectors[3, 5] = poison
    with pytest.raises(DeterministicError) as caught:
        check_finite(vectors, who="the engine")
    assert caught.value.reason == reason
    assert "the engine" in caught.value.message


def test_an_unquantised_engine_must_equal_eager() -> None:
    baseline, _ = noisy(10, 0.0)
    assert check_equal(baseline + np.float32(5e-5), baseline) < 1e-4
    with pytest.raises(DeterministicError, match="differs from eager"):
        check_equal(baseline + np.float32(2e-4), baseline)


def test_a_zero_vector_resembles_nothing() -> None:
    assert cosines(np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)).tolist() == [0.0]


@pytest.mark.parametrize(
    ("samples", "available", "counts"),
    [
        (512, 300, [300]),
        (512, 512, [512]),
        (512, 600, [512]),
        (512, 900, [512, 900]),
        (512, 2048, [512, 2048]),
        (512, 2300, [512, 2300]),
        (512, 5000, [512, 2048, 5000]),
        (512, 10**6, [512, 2048, 8192]),
        (8, 50, [8, 32, 50]),
    ],
)
def test_looks_are_planned_before_anything_is_looked_at(samples: int, available: int, counts: list[int]) -> None:
    looks = planned(samples, available)
    assert [look.samples for look in looks] == counts
    assert sum(look.share for look in looks) == pytest.approx(1.0)
    assert looks[0].share >= 0.5
    assert planned(samples, min(available, most_rows(samples))) == looks, "more rows than that are never looked at"


def test_a_look_bounds_more_strictly_than_the_only_look_would() -> None:
    baseline, engine = noisy(200, 0.1, seed=4)
    rows = [Row(str(number)) for number in range(200)]
    alone = compare(engine, baseline, rows, labels=[], request=request(), dataset="t")
    first, _, _ = planned(200, 10_000)
    one_of_three = compare(engine, baseline, rows, labels=[], request=request(), dataset="t", look=first)
    assert one_of_three.drop == alone.drop
    assert one_of_three.bounds[45] > alone.bounds[45]
    assert one_of_three.bounds[40] == pytest.approx(alone.bounds[45], rel=1e-3), "90 % over looks is 95 % in the first"


def test_looking_until_it_passes_does_not_let_a_bad_engine_through_more_often() -> None:
    """True drop at the budget: passing at any of the planned looks stays as rare as promised."""
    generator = np.random.default_rng(11)
    at = CONFIDENCES.index(0.95)
    passed = 0
    for _ in range(300):
        drops = generator.choice([0, 1, -1], size=2048, p=[0.96, 0.025, 0.015])
        bounds = (
            count_bounds(int((seen > 0).sum()), int((seen < 0).sum()), look.samples, [look.levels[at]])[0]
            for look in planned(128, 2048)
            for seen in [drops[: look.samples]]
        )
        passed += any(bound <= 0.01 for bound in bounds)
    assert passed / 300 <= 0.05


@pytest.mark.parametrize(
    ("drop", "bound", "done"), [(0.004, 0.009, True), (0.004, 0.02, False), (0.012, 0.02, False), (0.03, 0.04, True)]
)
def test_more_rows_are_drawn_until_it_passed_or_is_refuted(drop: float, bound: float, done: bool) -> None:
    baseline, engine = noisy(40, 0.1)
    verdict = Verdict.PASSED if bound <= 0.01 else Verdict.FAILED
    measured = judged(baseline, engine)
    assert settled(measured.model_copy(update={"drop": drop, "drop_upper_bound": bound, "verdict": verdict})) is done


def test_the_missing_samples_are_estimated_from_the_spread() -> None:
    """Four times the rows halve the distance between drop and bound."""
    evidence = judged(*noisy(40, 0.1)).model_copy(
        update={"drop": 0.006, "samples": 500, "bounds": [], "confidence": 0.9}
    )
    inconclusive = evidence.model_copy(update={"drop_upper_bound": 0.014})
    assert samples_missing(inconclusive, max_drop=0.01, confidence=0.9) == 1500
    assert samples_missing(inconclusive, max_drop=0.02, confidence=0.9) == 0
    assert samples_missing(inconclusive, max_drop=0.005, confidence=0.9) is None, "no number of rows helps"


def test_the_missing_samples_are_about_right() -> None:
    generator = np.random.default_rng(3)
    lost = generator.random(40_000) < 0.03
    won = ~lost & (generator.random(40_000) < 0.03)

    def measured(count: int) -> QualityEvidence:
        rows = [Row("x", label="0")] * count
        before, after = np.eye(2, dtype=np.float32)[won[:count] * 1], np.eye(2, dtype=np.float32)[lost[:count] * 1]
        return compare(after, before, rows, labels=["a", "b"], request=request("Accuracy"), dataset="t")

    missing = samples_missing(measured(2000), max_drop=0.01, confidence=0.95)
    assert missing is not None
    assert 200 < missing < 20_000
    assert measured(2000 + 2 * missing).verdict is Verdict.PASSED
