"""Manifests of the children: plain functions from facts to objects, the same everywhere."""
