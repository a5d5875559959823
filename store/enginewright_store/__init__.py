"""Artifacts in folders and buckets: `.artifact` publishes and reads them, `.signing` signs and verifies."""

from enginewright_store.medium import NotInStoreError
from enginewright_store.store import Credentials, Store, open_store

__all__ = ["Credentials", "NotInStoreError", "Store", "open_store"]
