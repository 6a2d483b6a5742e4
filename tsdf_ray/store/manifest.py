"""The manifest: one line per finished round, appended and flushed; a round exists when its line does.

A round that had to be played again has two lines: the later one counts. Where it came out differently, what an earlier
line said of the rounds after it counts no more, because they went on from what is there no longer.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tsdf_ray.digest import file_digest
from tsdf_ray.errors import UserError
from tsdf_ray.store.atomic import append


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

    def file(self, folder: str) -> str:
        """The round's file under `folder` (parts, perturbations, checkpoints, samples), as a path in the run."""
        return next(name for name in self.files if name.startswith(f"{folder}/"))

    def line(self) -> str:
        """As manifest.jsonl has it."""
        return json.dumps(asdict(self), sort_keys=True) + "\n"


class Manifest:
    """Reads and appends `manifest.jsonl`. Thread-safe; only one process may append (the run's lock sees to it)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._good_bytes = 0
        self.entries: list[Entry] = []
        """Every line, also those that count no more."""
        self._rounds: dict[str, dict[int, Entry]] = {}
        self._read()

    def _read(self) -> None:
        if not self._path.exists():
            return
        for line in self._path.read_bytes().splitlines(keepends=True):
            # A line cut short by a crash was never finished: its round is played again.
            if not line.endswith(b"\n"):
                break
            try:
                self._take(Entry(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"{self._path}: line {len(self.entries) + 1} is damaged; restore the file from a copy"
                ) from error
            self._good_bytes += len(line)

    def _take(self, entry: Entry) -> None:
        rounds = self._rounds.setdefault(entry.match, {})
        before = rounds.get(entry.round)
        if before is not None and before.digests != entry.digests:
            for later in [r for r in rounds if r > entry.round]:
                del rounds[later]
        rounds[entry.round] = entry
        self.entries.append(entry)

    def repair(self) -> None:
        """Cut off a torn last line. Only for the process that holds the run's lock."""
        if self._path.exists() and self._path.stat().st_size != self._good_bytes:
            os.truncate(self._path, self._good_bytes)

    def append(self, entry: Entry) -> None:
        """Make a round exist. Raises NotStored, and leaves the file as it was, when there is no room."""
        with self._guard:
            append(self._path, entry.line())
            self._take(entry)

    def of(self, match: str) -> list[Entry]:
        """Finished rounds of a match, in order, without gaps from round 1."""
        with self._guard:
            by_round = self._rounds.get(match, {})
            rounds: list[Entry] = []
            while len(rounds) + 1 in by_round:
                rounds.append(by_round[len(rounds) + 1])
            return rounds


KEPT_CHECKPOINTS = 2
_SUFFIX = {"parts": "parquet"}


def round_file(folder: str, match: str, round: int) -> str:
    """Where a file of a round lies in a run: folder parts, perturbations, checkpoints or samples."""
    return f"{folder}/{match}/round-{round:03d}.{_SUFFIX.get(folder, 'safetensors')}"


def stale_checkpoint(match: str, round: int) -> str | None:
    """The checkpoint nobody needs once `round` is finished: the last `KEPT_CHECKPOINTS` stay."""
    old = round - KEPT_CHECKPOINTS
    return round_file("checkpoints", match, old) if old > 0 else None


def check_files(root: Path, entry: Entry, only: str = "") -> None:
    """Compare a round's files (those under the folder `only`) with the manifest; UserError names one that differs."""
    for name in entry.files:
        if name.startswith(only) and (what := damage(root, entry, name)):
            raise UserError(f"{root / name}: {what}; restore it, or play into a new folder")


def damage(root: Path, entry: Entry, name: str, digest: Callable[[Path], str] = file_digest) -> str | None:
    """What is wrong with a file of a round, in words; None when it is as the manifest says."""
    try:
        if digest(root / name) == entry.files[name]:
            return None
    except FileNotFoundError:
        return "missing although the manifest lists it"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "differs from the manifest's digest"
