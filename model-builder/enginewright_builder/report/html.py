"""report.html: one file, no network."""

from __future__ import annotations

from enginewright_builder.report.facts import ReportFacts


def render_report(facts: ReportFacts) -> str:
    """HTML of a build."""
    return f"<!doctype html><title>{facts.request.key}</title>"
