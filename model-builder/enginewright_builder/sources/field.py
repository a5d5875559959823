"""Which field of the spec an error is about, where what raises it does not know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from enginewright_api.errors import DeterministicError

SOURCE = "source"
"""What origins call the source they read, whichever field it stands in."""


@contextmanager
def told_of(field: str) -> Iterator[None]:
    """Errors inside name this field: `source.package.name: …` becomes `<field>.package.name: …`."""
    try:
        yield
    except DeterministicError as error:
        if field == SOURCE:
            raise
        rest = error.message.removeprefix(f"{SOURCE}.")
        joint = ": " if rest == error.message else "."
        raise DeterministicError(error.reason, f"{field}{joint}{rest}") from error
