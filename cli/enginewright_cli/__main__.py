"""`python -m enginewright_cli`."""

from __future__ import annotations

from enginewright_cli.main import main

main()
