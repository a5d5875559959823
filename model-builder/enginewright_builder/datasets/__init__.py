"""Rows of text: to calibrate on, and to judge on. Never the same rows."""
