"""The signing key of local mode."""

from __future__ import annotations

from enginewright_cli.state import StateDirectory
from enginewright_store.signing import generate_key


def ensure_keys(state: StateDirectory) -> None:
    """Make the key pair once; the private half is readable by its owner only."""
    if not state.signing_key.exists():
        generate_key(state.signing_key)
