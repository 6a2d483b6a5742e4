"""Finished rounds on disk: written by the driver, read back by `resume`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from tsdf_ray.digest import array_digest, file_digest
from tsdf_ray.errors import UserError
from tsdf_ray.faces import FaceSet
from tsdf_ray.game.materials import Materials
from tsdf_ray.game.spec import MatchSpec
from tsdf_ray.game.steps import RoundResult, Standing
from tsdf_ray.generators import Tensors
from tsdf_ray.store.atomic import write_table, write_tensors
from tsdf_ray.store.manifest import Entry, Manifest, check_files

KEPT_CHECKPOINTS = 2


class Recorder:
    """Writes the files of a round, then its manifest line; answers where a match stands."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self._root = root
        self._manifest = manifest

    def standing(self, match: MatchSpec, materials: Materials) -> Standing:
        """The last finished round, from disk. Raises UserError when a file it needs is missing or differs."""
        entries = self._manifest.of(match.id)
        if not entries:
            return Standing(0, materials.generator)
        last = entries[-1].round
        if last == match.rounds:
            return Standing(last, {})
        check_files(self._root, entries[-1], "checkpoints/")
        stored, notes = read_tensors(self._root / _name("checkpoints", match.id, last, "safetensors"))
        generator = {name.removeprefix("G."): value for name, value in stored.items() if name.startswith("G.")}
        published = []
        for entry in entries:
            check_files(self._root, entry, "perturbations/")
            arrays, _ = read_tensors(self._root / _name("perturbations", match.id, entry.round, "safetensors"))
            published.append(materials.splits.evaluation.with_pixels(arrays["published"]))
        pool = _pool_from(stored, notes, published[0].attributes)
        return Standing(last, generator, tuple(pool), tuple(published))

    def record(self, match: MatchSpec, result: RoundResult) -> None:
        """Write the round; it exists from the moment its manifest line does."""
        r = result.round
        notes = {"match": match.id, "round": str(r), "w": result.learned.digest}
        pool = self._pool(match, result)
        paths = {
            folder: _name(folder, match.id, r, suffix)
            for folder, suffix in (
                ("parts", "parquet"),
                ("perturbations", "safetensors"),
                ("checkpoints", "safetensors"),
                ("samples", "safetensors"),
            )
        }
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
        self._manifest.append(
            Entry(
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
        )
        old = self._root / _name("checkpoints", match.id, r - KEPT_CHECKPOINTS, "safetensors")
        old.unlink(missing_ok=True)

    def _pool(self, match: MatchSpec, result: RoundResult) -> list[FaceSet]:
        """What a cumulative attacker carries on: earlier photos from the last checkpoint, and these."""
        if not match.cumulative:
            return []
        if result.round == 1:
            return [result.usable]
        stored, notes = read_tensors(self._root / _name("checkpoints", match.id, result.round - 1, "safetensors"))
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


def _name(folder: str, match: str, round: int, suffix: str) -> str:
    return f"{folder}/{match}/round-{round:03d}.{suffix}"


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a safetensors file. Raises UserError when it is missing or damaged."""
    try:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it, or play into a new folder") from error
