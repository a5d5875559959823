"""Which field of the spec an error is about, where what raises it does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from enginewright_api.errors import ERROR_BY_CLASS, DeterministicError, TransientError

SOURCE = "source"
"""What origins call the source they read, whichever field it stands in."""
DRAFT = f"runtime.speculativeDecoding.draft.{SOURCE}"
STUDENT = f"optimization.distillation.student.{SOURCE}"
TEACHERS = "optimization.distillation.teachers"

_PART = re.compile(rf"^{SOURCE}[.\w]*:? ")


@contextmanager
def told_of(field: str) -> Iterator[None]:
    """Errors inside name this field: `source.package.name: …` becomes `<field>.package.name: …`.

    An entry of a list, such as a teacher, is a source in one line: it has no parts that could be named.
    """
    try:
        yield
    except (DeterministicError, TransientError) as error:
        if field == SOURCE:
            raise
        raise ERROR_BY_CLASS[error.failure_class](error.reason, _named(field, error.message)) from error


def _named(field: str, message: str) -> str:
    if field.endswith("]"):
        return f"{field}: {_PART.sub('', message)}"
    rest = message.removeprefix(f"{SOURCE}.")
    return f"{field}{': ' if rest == message else '.'}{rest}"
