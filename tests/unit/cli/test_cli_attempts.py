"""A build on this machine is run again when something outside failed, and only then."""

from __future__ import annotations

import pytest

from enginewright_api.engine_build import BuildPhase
from enginewright_api.errors import DeterministicError, EnginewrightError, ResourceError, TransientError
from enginewright_api.outcome import BuildOutcome, Failure
from enginewright_cli.local.ladder import attempted
from enginewright_store.retrying import RetryPolicy

AWAY = TransientError("StoreUnavailable", "s3://b: no answer")
WRONG = DeterministicError("UnsafeWeights", "model.bin is a pickle")


def outcome(error: EnginewrightError) -> BuildOutcome:
    return BuildOutcome(key="a" * 64, failure=Failure.of(error, stage="fetch"))


def climbed(*errors: EnginewrightError) -> tuple[list[str], list[float], list[BuildOutcome], RetryPolicy]:
    """What is told, the pauses made, the outcomes to come, and a policy that makes no real pause."""
    pauses: list[float] = []
    return [], pauses, [outcome(error) for error in errors], RetryPolicy(3, 4.0, 6.0, pauses.append)


def test_an_outage_that_ends_is_no_rejection() -> None:
    told, pauses, left, policy = climbed(AWAY, AWAY, WRONG)
    status = attempted(lambda: left.pop(0), told.append, policy)
    assert status.phase is BuildPhase.FAILED
    assert status.failure is not None
    assert (status.failure.reason, status.failure.attempts, status.attempts) == ("UnsafeWeights", 3, 3)
    assert 2.0 <= pauses[0] <= 4.0
    assert 3.0 <= pauses[1] <= 6.0
    assert told[0] == "attempt 1 of 3: StoreUnavailable: s3://b: no answer"


def test_an_outage_that_lasts_ends_the_command() -> None:
    told, pauses, left, policy = climbed(AWAY, AWAY, AWAY, WRONG)
    with pytest.raises(TransientError, match="no answer; gave up after 3 attempts, run it again") as caught:
        attempted(lambda: left.pop(0), told.append, policy)
    assert caught.value.reason == "StoreUnavailable"
    assert (len(left), len(pauses)) == (1, 2)


@pytest.mark.parametrize(
    "error", [WRONG, ResourceError("DiskFull", "the disk is full")], ids=lambda error: error.reason
)
def test_what_another_attempt_cannot_help_is_the_rungs_end(error: EnginewrightError) -> None:
    told, pauses, left, policy = climbed(error, AWAY)
    status = attempted(lambda: left.pop(0), told.append, policy)
    assert status.failure is not None
    assert (status.failure.reason, status.failure.failure_class) == (error.reason, error.failure_class)
    assert (pauses, len(left)) == ([], 1)
