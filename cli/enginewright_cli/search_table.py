"""The candidates of a search as a table: what each came to, which ones nothing beats, and why the others lost."""

from __future__ import annotations

from enginewright_api.optimization import Profile
from enginewright_cli.output import print_table
from enginewright_operator.core.choice import sentence_of
from enginewright_operator.core.search import Search, Skipped, Trial

_GOALS = {Profile.LATENCY: "BATCH-1 SPEED", Profile.THROUGHPUT: "THROUGHPUT", Profile.SIZE: "SMALLER"}
_CHOSEN, _ON_FRONT = "→", "*"


def print_search(found: Search, profile: Profile) -> None:
    """`→` is the chosen one, `*` lies on the Pareto front of goal, quality bound and size."""
    columns = ["", "CANDIDATE", "GATE", "DROP ≤", _GOALS[profile], "SPEED-UP", "MIB", "SECONDS", "WHY"]
    print_table(columns, [_row(entry, found, profile) for entry in found.entries])


def _row(entry: Trial | Skipped, found: Search, profile: Profile) -> list[str]:
    why = sentence_of(entry, found, profile)
    if isinstance(entry, Skipped):
        return ["", entry.candidate.title, "-", "-", "-", "-", "-", "-", why]
    measured = entry.measured
    if measured is None:
        return ["", entry.candidate.title, "-", "-", "-", "-", "-", f"{entry.seconds:.0f}", why]
    on_front = entry.candidate.rung.key in found.front
    verdict = entry.judged.verdict.value if entry.judged.verdict is not None else "-"
    return [
        _CHOSEN if entry is found.best else _ON_FRONT if on_front else "",
        entry.candidate.title,
        verdict,
        f"{measured.quality.drop_upper_bound:.4f}",
        f"{entry.gain:.2f}×",
        f"{measured.benchmark.speedup:.2f}×",
        f"{measured.benchmark.size_bytes / 2**20:.1f}",
        f"{entry.seconds:.0f}",
        why,
    ]
