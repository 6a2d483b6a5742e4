"""A run whose place is a URI: it is played in a local folder, and copied there round by round.

A round's files are copied before its line, so a round exists in the copy only when its line does. The lines are
`manifest.jsonl` and, beyond its last one, an object per line (`lines/00000042.jsonl`): rewriting the whole manifest
after every round would cost the square of the rounds. Another machine goes on from the copy alone (`take_up`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tsdf_ray.digest import file_digest
from tsdf_ray.errors import UserError
from tsdf_ray.game.spec import all_matches
from tsdf_ray.scenario import Scenario
from tsdf_ray.storage import under_way
from tsdf_ray.store.atomic import write_text
from tsdf_ray.store.fetch import AT_ONCE, HEAD, fetch, line_name, remote_lines, same_run
from tsdf_ray.store.lease import Lease
from tsdf_ray.store.manifest import KEPT_CHECKPOINTS, Entry, Manifest, stale_checkpoint
from tsdf_ray.store.mirror import Mirror

SETTLED = 256
"""Lines after which the manifest of the copy is written anew, as are the events; of a long run a quarter of what it
has, so that all writing together grows with the run, not with its square."""
FEW = 3
"""Tries of writing the lease: one that takes longer than a lease lasts may write over the next holder's."""
BEGUN = {"lock", "scenario.yaml"}
"""What a copy holds before run.json makes it one."""
RESULTS = ("tables", "figures")
"""Folders of what is made at the end."""


class Copy:
    """The copy of a run that this process plays. Thread-safe."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self.root = mirror.cache
        self.notes: list[str] = []
        """What happened when the copy was taken up, in words."""
        self._guard = threading.Lock()
        self._lines: list[str] = []
        self._settled = 0
        self._lease = Lease(str(mirror), self._read_lease, lambda text: mirror.write("lock", text.encode(), FEW))

    def _read_lease(self) -> str | None:
        data = self.mirror.read("lock")
        return None if data is None else data.decode("utf-8", "replace")

    def check_new(self) -> None:
        """Raises UserError unless a new run can be made there."""
        names = [name for name in self.mirror.names() if not under_way(name)]
        if "run.json" in names:
            raise UserError(
                f"{self.mirror}: is a run already; go on with `tsdf-ray resume {self.mirror}`, or choose another --out"
            )
        # A run that was killed before it was one leaves its lock, and its scenario perhaps.
        if set(names) - (BEGUN if "lock" in names else set()):
            raise UserError(f"{self.mirror}: is not empty; choose another --out")

    def hold(self) -> None:
        """Become the one who writes it. Raises UserError while another process does."""
        if note := self._lease.take(locked=False):
            self.notes.append(note)

    def check(self) -> None:
        """Raises UserError when another process took it over while this one gave no sign of life."""
        self._lease.check()

    def close(self) -> None:
        """Give it back."""
        self._lease.release()

    def told(self) -> bytes:
        """run.json there. Raises UserError when there is no run."""
        found = self.mirror.read("run.json")
        if found is None:
            raise UserError(f"{self.mirror}: is not a run (no run.json); give what `play --out` was given")
        return found

    def take_up(self) -> None:
        """Bring the local folder up to date with the copy, or the copy with the folder when that has more.

        Raises UserError when there is no run.
        """
        told = self.told()
        self.mirror.sweep()
        there = remote_lines(self.mirror)
        here = local_lines(self.root)
        if self._diverged(told, set(here), set(there)):
            self.set_aside()
            here = []
        known = set(there)
        ahead = [line for line in here if line not in known]
        if known - set(here) or not (self.root / "run.json").exists():
            fetch(self.mirror, self.root, HEAD)
            write_text(self.root / "manifest.jsonl", "".join(there))
        with self._guard:
            self._lines = there
        self._fetch_needed()
        for line in ahead:
            self.put_round(Entry(**json.loads(line)))
        if ahead:
            self.notes.append(f"{len(ahead)} round(s) that were only on this machine are in the copy now")

    def _diverged(self, told: bytes, here: set[str], there: set[str]) -> bool:
        """Does the local folder tell another story than the copy?"""
        if not (self.root / "run.json").exists():
            return self.root.exists()
        same = same_run((self.root / "run.json").read_bytes(), told)
        return not same or bool(here - there and there - here)

    def set_aside(self) -> None:
        """Move the local folder out of the way, if there is one."""
        if not self.root.exists():
            return
        number = 1
        while (aside := self.root.with_name(f"{self.root.name}.old-{number}")).exists():
            number += 1
        self.root.rename(aside)
        self.notes.append(f"what an earlier run with this URI left on this machine was moved to {aside}")

    def _fetch_needed(self) -> None:
        """What going on, and the end, look back on; a local file that is as it should be stays."""
        scenario = Scenario.load(self.root / "scenario.yaml")
        manifest = Manifest(self.root / "manifest.jsonl")
        wanted = dict(needed(scenario, manifest))

        def one(name: str) -> None:
            path = self.root / name
            if not path.exists() or file_digest(path) != wanted[name]:
                self.mirror.get(name, path)

        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch") as threads:
            list(threads.map(one, wanted))

    def put(self, names: Iterable[str]) -> None:
        """Copy files of the folder, those that are there. Raises NotStored when it cannot be done."""
        for name in names:
            if (self.root / name).exists():
                self.mirror.put(self.root / name, name)

    def put_round(self, entry: Entry) -> None:
        """A finished round: its files, then its line; the checkpoint nobody needs any more goes.

        Raises NotStored when it cannot be done, and UserError when another process has taken the copy over.
        """
        with self._guard:
            self.check()
            self.put(entry.files)
            self.check()  # that may have taken long
            self.mirror.write(line_name(len(self._lines)), entry.line().encode())
            self._lines.append(entry.line())
            if len(self._lines) - self._settled >= max(SETTLED, self._settled // 4):
                self._settle()
            if old := stale_checkpoint(entry.match, entry.round):
                self.mirror.delete(old)

    def _settle(self) -> None:
        """All lines into one file; the objects of single lines go after it is there."""
        self.put(["events.jsonl"])
        if self._lines:
            self.mirror.write("manifest.jsonl", "".join(self._lines).encode())
        for name in self.mirror.names("lines"):
            self.mirror.delete(name)
        self._settled = len(self._lines)

    def finish(self) -> None:
        """The results, and what is missing there; run.json last: it says that they are whole. Raises as `put_round`."""
        with self._guard:
            self.check()
            self._settle()
            self.put(["summary.json", "report.html"])
            for folder in RESULTS:
                self.put(str(path.relative_to(self.root)) for path in sorted((self.root / folder).glob("[!.]*")))
            self.put(["run.json"])


def needed(scenario: Scenario, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """(file, SHA-256) of all that `resume` reads: checkpoints and perturbations of unfinished matches, parts and the
    last samples of all."""
    for match in all_matches(scenario):
        entries = manifest.of(match.id)
        names = [entry.file("parts") for entry in entries]
        if entries:
            names.append(entries[-1].file("samples"))
        if entries and entries[-1].round < scenario.rounds:
            names += [entry.file("perturbations") for entry in entries]
            names += [entry.file("checkpoints") for entry in entries[-KEPT_CHECKPOINTS:]]
        digests = {name: digest for entry in entries for name, digest in entry.files.items()}
        yield from ((name, digests[name]) for name in names)


def local_lines(root: Path) -> list[str]:
    """The whole lines of a folder's manifest."""
    path = root / "manifest.jsonl"
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
