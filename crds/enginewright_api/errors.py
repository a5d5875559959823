"""The one error tree. Whatever Enginewright raises on purpose is an `EnginewrightError`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError


class FailureClass(StrEnum):
    """Decides what happens after a failure: never retry, retry with more, retry as it was."""

    DETERMINISTIC = "Deterministic"
    RESOURCE = "Resource"
    TRANSIENT = "Transient"


class EnginewrightError(Exception):
    """Base of all deliberate errors.

    `reason` is the API's CamelCase reason (it ends up in conditions and termination messages);
    `message` is one sentence that says what, where (field or file) and what to do.
    """

    failure_class: ClassVar[FailureClass]
    exit_code: ClassVar[int]

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class DeterministicError(EnginewrightError):
    """Retrying cannot help: the input has to change (UnsupportedOperator, UnsafeWeights, WillNotFit, ...)."""

    failure_class = FailureClass.DETERMINISTIC
    exit_code = 20


class ResourceError(EnginewrightError):
    """Memory or disk ran out: retried once with what was measured to be needed, if the class has it."""

    failure_class = FailureClass.RESOURCE
    exit_code = 21


class TransientError(EnginewrightError):
    """An outside thing failed (store, hub, node): retried with back-off until the attempts are used up."""

    failure_class = FailureClass.TRANSIENT
    exit_code = 22


ERROR_BY_CLASS: dict[FailureClass, type[DeterministicError | ResourceError | TransientError]] = {
    FailureClass.DETERMINISTIC: DeterministicError,
    FailureClass.RESOURCE: ResourceError,
    FailureClass.TRANSIENT: TransientError,
}


def first_problem(error: ValidationError, within: str = "") -> str:
    """`field.path: what is wrong` on one line, of the first problem; `within` is the path of what was validated.

    A field's name may be anyone's text: what cannot be printed in it is escaped.
    """
    problem = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in (within, *problem["loc"]) if part != "") or "the file"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in f"{path}: {problem['msg']}")
