"""A process keeps its locks on the file whatever else it opens: without them another process damages it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

from enginewright_cluster.sqlite_rows import open_file

# The last connection to leave takes the write-ahead log with it; one that sees no locks believes that it is the last.
_COME_AND_GO = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM objects").fetchone()
connection.close()
"""


def test_a_second_connection_does_not_drop_the_locks_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "objects.sqlite3"
    first = open_file(path)
    first.execute("UPDATE counters SET value = value + 1 WHERE name = 'version'")
    second = open_file(path)
    subprocess.run([sys.executable, "-c", _COME_AND_GO, str(path)], check=True, timeout=30)
    assert path.with_name("objects.sqlite3-wal").exists()
    second.close()
    first.execute("UPDATE counters SET value = value + 1 WHERE name = 'version'")
    first.close()
    with sqlite3.connect(path) as check:
        assert check.execute("SELECT value FROM counters WHERE name = 'version'").fetchone() == (2,)
        assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
