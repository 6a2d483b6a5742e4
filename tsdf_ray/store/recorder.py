"""Finished rounds on disk: written by the driver, read back by `resume`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from tsdf_ray.digest import array_digest, file_digest
from tsdf_ray.errors import MatchFailed, UserError
from tsdf_ray.faces import FaceSet
from tsdf_ray.game.materials import Materials
from tsdf_ray.game.spec import MatchSpec
from tsdf_ray.game.steps import RoundResult, Standing
from tsdf_ray.generators import Tensors
from tsdf_ray.store.atomic import write_table, write_tensors
from tsdf_ray.store.manifest import (
    KEPT_CHECKPOINTS,
    Entry,
    Manifest,
    damage,
    round_file,
    stale_checkpoint,
)

FOLDERS = ("parts", "perturbations", "checkpoints", "samples")


class Keeper(Protocol):
    """The run a recorder writes into (`RunDirectory`)."""

    def check(self) -> None: ...
    def log(self, line: Mapping[str, Any]) -> None: ...
    def recorded(self, entry: Entry) -> None: ...


class Recorder:
    """Writes the files of a round, then its manifest line; answers where a match stands."""

    def __init__(
        self, root: Path, manifest: Manifest, run: Keeper | None = None, tell: Callable[[str], None] | None = None
    ) -> None:
        """`run`: asked before a round is made to exist, and told of it afterwards; `tell`: shows a line to people."""
        self._root = root
        self._manifest = manifest
        self._run = run
        self._tell = tell

    def standing(self, match: MatchSpec, materials: Materials) -> Standing:
        """The last finished round whose files, and those of the rounds before it, are as the manifest says.

        Rounds after it are played again, and what is damaged is said; nothing of them is removed before that.
        """
        entries = self._manifest.of(match.id)
        last = self._whole(match, entries)
        if last == 0:
            return Standing(0, materials.generator)
        if last == match.rounds:
            return Standing(last, {})
        stored, notes = read_tensors(self._root / round_file("checkpoints", match.id, last))
        generator = {name.removeprefix("G."): value for name, value in stored.items() if name.startswith("G.")}
        published = []
        for entry in entries[:last]:
            arrays, _ = read_tensors(self._root / round_file("perturbations", match.id, entry.round))
            published.append(materials.splits.evaluation.with_pixels(arrays["published"]))
        pool = _pool_from(stored, notes, published[0].attributes)
        return Standing(last, generator, tuple(pool), tuple(published))

    def _whole(self, match: MatchSpec, entries: list[Entry]) -> int:
        """The last round that can be gone on from, 0 when there is none; says what is damaged."""
        ended = len(entries) == match.rounds
        found: list[str] = []

        def good(entry: Entry, folder: str) -> bool:
            name = entry.file(folder)
            what = damage(self._root, entry, name)
            if what is not None:
                found.append(f"{self._root / name}: {what}")
            return what is None

        # Whatever is read later on: all parts at the end, what was published as long as rounds are to come, the last
        # samples for the report.
        last = 0
        for entry in entries:
            if not good(entry, "parts") or not (ended or good(entry, "perturbations")):
                break
            last = entry.round
        if ended and last == match.rounds and not good(entries[-1], "samples"):
            last -= 1
        if ended and last < match.rounds:
            last = next((e.round - 1 for e in entries[:last] if not good(e, "perturbations")), last)
        while 0 < last < match.rounds:
            # Only the last checkpoints are kept: that an earlier one is gone is no damage.
            kept = last > len(entries) - KEPT_CHECKPOINTS
            if (kept or (self._root / entries[last - 1].file("checkpoints")).exists()) and good(
                entries[last - 1], "checkpoints"
            ):
                break
            last -= 1
        if last < len(entries):
            self._say(match, found, last, len(entries))
        return last

    def _say(self, match: MatchSpec, found: list[str], last: int, ended: int) -> None:
        rounds = f"round {last + 1} is" if last + 1 == ended else f"rounds {last + 1} to {ended} are"
        start = f"from round {last}" if last else "from the beginning"
        text = f"{match.id}: {'; '.join(found)}; {rounds} played again, {start}"
        if self._run is not None:
            self._run.log({"event": "damaged", "match": match.id, "files": found, "again_from": last + 1, "note": text})
        if self._tell is not None:
            self._tell(text)

    def record(self, match: MatchSpec, result: RoundResult) -> None:
        """Write the round; it exists from the moment its manifest line does.

        Raises NotStored when there is no room, and UserError when another process has taken the run over.
        """
        r = result.round
        notes = {"match": match.id, "round": str(r), "w": result.learned.digest}
        pool = self._pool(match, result)
        paths = {folder: round_file(folder, match.id, r) for folder in FOLDERS}
        write_table(self._root / paths["parts"], result.rows)
        write_tensors(
            self._root / paths["perturbations"],
            {f"defence.{name}": value for name, value in result.learned.tensors.items()}
            | {"published": result.published.pixels_BCHW},
            notes,
        )
        weights = {f"G.{name}": value for name, value in result.generator.items()}
        write_tensors(
            self._root / paths["checkpoints"],
            weights | _pool_tensors(pool),
            notes | {"pool": json.dumps([photos.ids for photos in pool])},
        )
        write_tensors(self._root / paths["samples"], result.samples, result.notes)
        entry = Entry(
            match.id,
            match.seed,
            match.defender,
            match.attacker,
            r,
            {path: file_digest(self._root / path) for path in paths.values()},
            {
                "w": result.learned.digest,
                "published": result.published.digest,
                "generator": array_digest(result.generator),
            },
            len(result.usable),
            result.retrained.steps,
            result.retrained.reason,
        )
        if self._run is not None:
            self._run.check()
        self._manifest.append(entry)
        if old := stale_checkpoint(match.id, r):
            (self._root / old).unlink(missing_ok=True)
        if self._run is not None:
            self._run.recorded(entry)

    def _pool(self, match: MatchSpec, result: RoundResult) -> list[FaceSet]:
        """What a cumulative attacker carries on: earlier photos from the last checkpoint, and these."""
        if not match.cumulative:
            return []
        if result.round == 1:
            return [result.usable]
        before = self._manifest.of(match.id)[result.round - 2]
        # It goes on into this round's checkpoint, whose digest would vouch for it.
        if what := damage(self._root, before, before.file("checkpoints")):
            raise MatchFailed(f"{self._root / before.file('checkpoints')}: {what}; `tsdf-ray resume` plays it again")
        stored, notes = read_tensors(self._root / before.file("checkpoints"))
        return [*_pool_from(stored, notes, result.usable.attributes), result.usable]


def _pool_tensors(pool: list[FaceSet]) -> Tensors:
    tensors: Tensors = {}
    for i, photos in enumerate(pool):
        tensors[f"pool.{i}.pixels"] = photos.pixels_BCHW
        tensors[f"pool.{i}.labels"] = photos.labels_BA
    return tensors


def _pool_from(stored: dict[str, np.ndarray], notes: dict[str, str], attributes: tuple[str, ...]) -> list[FaceSet]:
    """What `_pool_tensors` and the note `pool` (ids per round) of a checkpoint stand for."""
    return [
        FaceSet(stored[f"pool.{i}.pixels"], stored[f"pool.{i}.labels"], attributes, tuple(ids))
        for i, ids in enumerate(json.loads(notes["pool"]))
    ]


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a safetensors file. Raises UserError when it is missing or damaged."""
    try:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it, or play into a new folder") from error
