"""What a process need not compute again: results of steps that depend on their key alone, kept up to a size.

A search plays many matches in one process that differ in a few keys: the clean forgeries of G_0 are the same in all
of them, and a defence that is not searched learns and publishes the same in every first round. Off by default: the
roles of a single race have nothing to share.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
SEARCH_BYTES = 512 << 20
"""What the process of a search's trials keeps at most: some fifty sets of 48 photos with their forgeries."""


class Kept:
    """A memory of results, least recently used ones leave first. Thread-safe; results must not be changed by users."""

    def __init__(self, most_bytes: int = 0) -> None:
        self._guard = threading.Lock()
        self._most = most_bytes
        self._held: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self.hits = 0

    @property
    def on(self) -> bool:
        """Does it keep anything?"""
        return self._most > 0

    def resize(self, most_bytes: int) -> None:
        """Keep at most so much; 0: nothing."""
        with self._guard:
            self._most = most_bytes
            self._shrink()

    def get(self, key: Mapping[str, Any], make: Callable[[], T], size: Callable[[T], int]) -> T:
        """The result of `key` (plain values, which name everything it depends on), made when it is not there."""
        if not self.on:
            return make()
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        with self._guard:
            if name in self._held:
                self._held.move_to_end(name)
                self.hits += 1
                found: T = self._held[name][0]
                return found
        made = make()
        with self._guard:
            self._held[name] = made, size(made)
            self._shrink()
        return made

    def _shrink(self) -> None:
        total = sum(size for _, size in self._held.values())
        while total > self._most:
            _, (_, size) = self._held.popitem(last=False)
            total -= size


KEPT = Kept()
"""Of this process."""
