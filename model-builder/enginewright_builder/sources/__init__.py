"""Trained weights from wherever they are, checked before anything is built from them."""
