"""Secrets in messages, arguments and tracebacks of whatever logger and handler."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enginewright_builder.secrecy import HIDDEN, keep_out_of_logs, mounted, without

SECRET = "hf_4711"


@pytest.fixture
def written() -> Iterator[Callable[[], str]]:
    """What a library's own handler has written since secrets are kept from it."""
    make, stream = logging.getLogRecordFactory(), io.StringIO()
    handler, logger = logging.StreamHandler(stream), logging.getLogger("library")
    logger.addHandler(handler)
    keep_out_of_logs({SECRET, f"{SECRET}-longer"})
    yield stream.getvalue
    logging.setLogRecordFactory(make)
    logger.removeHandler(handler)


def raised() -> None:
    try:
        raise ValueError(f"the hub says {SECRET}")
    except ValueError as error:
        raise LookupError("no such model") from error


@pytest.mark.parametrize(
    ("message", "arguments", "expected"),
    [
        (f"sent {SECRET}", (), f"sent {HIDDEN}"),
        ("sent %s to %s", (SECRET, "hub"), f"sent {HIDDEN} to hub"),
        ("sent %r", ({"Authorization": f"Bearer {SECRET}"},), f"'Bearer {HIDDEN}'"),
        ("sent %(what)s", ({"what": SECRET},), f"sent {HIDDEN}"),
        ("sent %s-longer", (SECRET,), f"sent {HIDDEN}\n"),
        ("sent %d", (SECRET,), f"sent %d ('{HIDDEN}',)"),
        ("100 % of it", (), "100 % of it"),
    ],
)
def test_records(written: Callable[[], str], message: str, arguments: tuple[object, ...], expected: str) -> None:
    logging.getLogger("library.part").warning(message, *arguments)
    assert expected in written()
    assert SECRET not in written()


def test_tracebacks_with_all_their_causes(written: Callable[[], str]) -> None:
    try:
        raised()
    except LookupError:
        logging.getLogger("library").exception("failed")
    assert f"ValueError: the hub says {HIDDEN}" in written()
    assert "LookupError: no such model" in written()
    assert SECRET not in written()


def test_all_that_is_mounted_is_secret(tmp_path: Path) -> None:
    """As Kubernetes mounts it: links to a folder with a date as its name."""
    data = tmp_path / "hub" / "..2026_01_01"
    data.mkdir(parents=True)
    (data / "token").write_text(f"{SECRET}\n")
    (data / "empty").write_text("\n")
    (tmp_path / "hub" / "..data").symlink_to("..2026_01_01")
    (tmp_path / "hub" / "token").symlink_to("..data/token")
    assert mounted(tmp_path) == {SECRET}
    assert mounted(tmp_path / "nothing") == frozenset()
    assert without(f"a {SECRET} b", mounted(tmp_path)) == f"a {HIDDEN} b"


def test_without_secrets_records_are_left_alone() -> None:
    make = logging.getLogRecordFactory()
    keep_out_of_logs(frozenset())
    assert logging.getLogRecordFactory() is make
