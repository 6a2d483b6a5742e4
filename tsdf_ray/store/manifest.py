"""The manifest: one line per finished round, appended and flushed; a round exists when its line does."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from tsdf_ray.digest import file_digest
from tsdf_ray.errors import UserError


@dataclass(frozen=True)
class Entry:
    """One finished round of one match."""

    match: str
    seed: int
    defender: str
    attacker: str
    round: int
    files: dict[str, str]
    """Path in the run -> SHA-256."""
    digests: dict[str, str]
    """`w` (what the defence learned), `published` and `generator` (G_r): equal on every executor for one seed."""
    usable: int
    """Photos of this round the attacker could use."""
    steps: int
    """Retraining steps made."""
    reason: str | None
    """Why the attacker did not retrain."""


class Manifest:
    """Reads and appends `manifest.jsonl`. Thread-safe; only one process may append (the run's lock sees to it)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._good_bytes = 0
        self.entries: list[Entry] = self._read()

    def _read(self) -> list[Entry]:
        if not self._path.exists():
            return []
        whole: list[Entry] = []
        kept = 0
        for line in self._path.read_bytes().splitlines(keepends=True):
            # A line cut short by a crash was never finished: its round is played again.
            if not line.endswith(b"\n"):
                break
            try:
                whole.append(Entry(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"{self._path}: line {len(whole) + 1} is damaged; restore the file from a copy"
                ) from error
            kept += len(line)
        self._good_bytes = kept
        return whole

    def repair(self) -> None:
        """Cut off a torn last line. Only for the process that holds the run's lock."""
        if self._path.exists() and self._path.stat().st_size != self._good_bytes:
            os.truncate(self._path, self._good_bytes)

    def append(self, entry: Entry) -> None:
        """Make a round exist."""
        line = json.dumps(asdict(entry), sort_keys=True) + "\n"
        with self._guard:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            self.entries.append(entry)

    def of(self, match: str) -> list[Entry]:
        """Finished rounds of a match, in order, without gaps from round 1."""
        with self._guard:
            by_round = {entry.round: entry for entry in self.entries if entry.match == match}
        rounds: list[Entry] = []
        while len(rounds) + 1 in by_round:
            rounds.append(by_round[len(rounds) + 1])
        return rounds


def check_files(root: Path, entry: Entry, only: str = "") -> None:
    """Compare a round's files (those under the folder `only`) with the manifest; UserError names one that differs."""
    for name, digest in entry.files.items():
        if not name.startswith(only):
            continue
        path = root / name
        if not path.exists():
            raise UserError(f"{path}: missing although the manifest lists it; restore it, or play into a new folder")
        if file_digest(path) != digest:
            raise UserError(f"{path}: differs from the manifest's digest; restore it, or play into a new folder")
