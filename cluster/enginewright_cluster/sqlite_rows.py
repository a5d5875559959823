"""Objects in one SQLite file that several processes share."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from .port import Kind, Object, Ref, UnavailableError

BUSY_SECONDS = 15.0
CHANGES_KEPT = 5_000
"""A watcher further behind than this lists afresh."""
_TRIM_EVERY = 256

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS objects_by_uid ON objects (uid);
CREATE TABLE IF NOT EXISTS owners (
    owner TEXT NOT NULL, uid TEXT NOT NULL, PRIMARY KEY (owner, uid)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS owners_by_uid ON owners (uid);
CREATE TABLE IF NOT EXISTS changes (
    version INTEGER PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, deleted INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO counters VALUES ('version', 0), ('trimmed', 0);
"""


def open_file(path: Path) -> sqlite3.Connection:
    """A connection to the file, made if it is not there: for its owner only, since Secrets are inside."""
    with translated(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Only ever to create it: closing any descriptor of the file drops all POSIX locks that this process holds
            # on it, those of its other connections too, and then another process damages the file.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise UnavailableError("Unavailable", f"{path}: cannot be opened: {error.strerror}") from error
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        return connection


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as UnavailableError with what to do."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorname", "")
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            says = f"another process has held it for {BUSY_SECONDS:g} s; is one of them stopped?"
        elif code.startswith("SQLITE_FULL"):
            says = "the disk is full; free some space"
        elif code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            says = f"the file is damaged ({error}); stop the control plane, move the file away and apply again"
        else:
            says = f"{error} ({code or type(error).__name__}); are the folder and the disk fine?"
        raise UnavailableError("Unavailable", f"{path}: {says}") from error


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, *, write: bool) -> Iterator[SqliteRows]:
    """All or nothing. A writer has the lock from the start, so it never fails half-way because of another."""
    connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
    try:
        yield SqliteRows(connection)
    except BaseException:
        if connection.in_transaction:  # SQLite itself has rolled back after a full disk
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


class SqliteRows:
    """Rows within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @property
    def version(self) -> int:
        """The last resourceVersion given out."""
        return self._counter("version")

    def read(self, ref: Ref) -> Object | None:
        """The object, or None."""
        row = self._connection.execute(
            "SELECT body FROM objects WHERE kind = ? AND namespace = ? AND name = ?",
            (_kind_text(ref.kind), ref.namespace or "", ref.name),
        ).fetchone()
        return _parsed(row[0]) if row is not None else None

    def select(self, kind: Kind | None, namespace: str | None) -> list[Object]:
        """Objects by namespace and name."""
        rows = self._connection.execute(
            "SELECT body FROM objects WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR namespace = ?2)"
            " ORDER BY kind, namespace, name",
            (_kind_text(kind) if kind is not None else None, namespace),
        )
        return [_parsed(body) for (body,) in rows]

    def has_uid(self, uid: str) -> bool:
        """Whether an object with this uid exists."""
        return self._connection.execute("SELECT 1 FROM objects WHERE uid = ?", (uid,)).fetchone() is not None

    def owned_by(self, uid: str) -> list[Object]:
        """Objects with an owner reference to this uid."""
        rows = self._connection.execute(
            "SELECT body FROM owners JOIN objects USING (uid) WHERE owner = ? ORDER BY kind, namespace, name", (uid,)
        )
        return [_parsed(body) for (body,) in rows]

    def write(self, ref: Ref, item: Object) -> Object:
        """Store under the next resourceVersion."""
        version = self._next_version()
        item = item | {"metadata": item["metadata"] | {"resourceVersion": str(version)}}
        body, uid = json.dumps(item, separators=(",", ":")), item["metadata"]["uid"]
        key = (_kind_text(ref.kind), ref.namespace or "")
        self._connection.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", (*key, ref.name, uid, body))
        self._connection.execute("DELETE FROM owners WHERE uid = ?", (uid,))
        owners = {owner["uid"] for owner in item["metadata"].get("ownerReferences") or ()}
        self._connection.executemany("INSERT INTO owners VALUES (?, ?)", [(owner, uid) for owner in owners])
        self._connection.execute("INSERT INTO changes VALUES (?, ?, ?, 0, ?)", (version, *key, body))
        return item

    def remove(self, ref: Ref, item: Object) -> None:
        """Forget an object."""
        version = self._next_version()
        last = item | {"metadata": item["metadata"] | {"resourceVersion": str(version)}}
        key = (_kind_text(ref.kind), ref.namespace or "")
        self._connection.execute("DELETE FROM objects WHERE kind = ? AND namespace = ? AND name = ?", (*key, ref.name))
        self._connection.execute("DELETE FROM owners WHERE uid = ?", (item["metadata"]["uid"],))
        body = json.dumps(last, separators=(",", ":"))
        self._connection.execute("INSERT INTO changes VALUES (?, ?, ?, 1, ?)", (version, *key, body))

    def changes_after(self, version: int, kind: Kind, namespace: str | None) -> list[tuple[bool, Object]] | None:
        """(deleted, object) in order; None when some of them are already trimmed."""
        if self._counter("trimmed") > version:
            return None
        rows = self._connection.execute(
            "SELECT deleted, body FROM changes WHERE version > ?1 AND kind = ?2 AND (?3 IS NULL OR namespace = ?3)"
            " ORDER BY version",
            (version, _kind_text(kind), namespace),
        )
        return [(bool(deleted), _parsed(body)) for deleted, body in rows]

    def _next_version(self) -> int:
        self._connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'version'")
        version = self.version
        if version % _TRIM_EVERY == 0 and version > CHANGES_KEPT:
            oldest = version - CHANGES_KEPT
            self._connection.execute("DELETE FROM changes WHERE version <= ?", (oldest,))
            self._connection.execute("UPDATE counters SET value = ? WHERE name = 'trimmed'", (oldest,))
        return version

    def _counter(self, name: str) -> int:
        (value,) = self._connection.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
        return int(value)


def _kind_text(kind: Kind) -> str:
    return f"{kind.api_version}/{kind.kind}"


def _parsed(body: str) -> Object:
    item: Object = json.loads(body)
    return item
