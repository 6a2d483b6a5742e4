"""Jobs over photo collections that do not fit into memory, by Ray Data: see docs/collections.md."""

from actors.collections.tasks import Measured, Written, measure, prepare, protect

__all__ = ["Measured", "Written", "measure", "prepare", "protect"]
