"""Rows of text: to calibrate on, and to judge on. Never the same rows."""

from enginewright_builder.datasets.draw import Drawn, draw, without_leaks
from enginewright_builder.datasets.rows import Row

__all__ = ["Drawn", "Row", "draw", "without_leaks"]
