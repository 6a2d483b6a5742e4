"""Forgeries for the evaluator: every photo with every edit, in chunks; those of clean photos are kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tsdf_ray.crew import Seat
from tsdf_ray.digest import array_digest
from tsdf_ray.faces.edits import Edits
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.base import Family
from tsdf_ray.kept import KEPT


class Forger:
    """Forges the pairs (photo, edit) of `edits` on the seat's device, and keeps clean forgeries of its own chunks.

    `autocast` runs passes in bfloat16; `initial` is G_0, whose clean forgeries are compared with again and again.
    """

    def __init__(self, edits: Edits, chunks: Sequence[slice], seat: Seat, initial: Family, *, autocast: bool) -> None:
        self._edits, self._chunks, self._seat = edits, chunks, seat
        self._device = torch.device(seat.device)
        self._autocast = autocast
        self._initial_digest = generator_digest(initial)
        self._clean: dict[tuple[str, str], dict[int, torch.Tensor]] = {}

    def forge(self, generator: Family, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        """G(x, c), float32 on the device; photos and labels may be elsewhere."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            # A forgery is a picture: some families' last layer is not bounded.
            return generator.edit(x_BCHW.to(self._device), c_BA.to(self._device)).float().clamp(-1.0, 1.0)

    def pairs(self, generator: Family, images_BCHW: torch.Tensor, chunk: slice) -> torch.Tensor:
        """The forgeries of a chunk of pairs, from all photos."""
        return self.forge(generator, images_BCHW[self._edits.photo_P[chunk]], self._edits.target_PA[chunk])

    def clean(self, generator: Family, clean: FaceSet) -> dict[int, torch.Tensor]:
        """G(x, c) of this worker's pairs, by the start of their chunk; on the CPU: they would fill a small device.

        Kept: G_0's and the last generator's, of the last `clean` photos.
        """
        key, crew = (generator_digest(generator), clean.digest), self._seat.crew

        def forge() -> dict[int, torch.Tensor]:
            images, mine = clean.images(), crew.mine(len(self._chunks))
            with torch.inference_mode():
                own = (self._chunks[n] for n in mine)
                return {chunk.start: self.pairs(generator, images, chunk).cpu() for chunk in own}

        if key not in self._clean:
            if key[0] == self._initial_digest and crew.size == 1:
                # G_0's are the same in every trial of a search.
                cut = [chunk.stop - chunk.start for chunk in self._chunks[:1]]
                whole = {"clean forgeries": [*key, generator.name, self._autocast, cut, self._device.type]}
                forged = KEPT.get(whole, forge, lambda made: sum(chunk.nbytes for chunk in made.values()))
            else:
                forged = forge()
            self._clean = {
                other: kept
                for other, kept in self._clean.items()
                if other[1] == key[1] and self._initial_digest in {other[0], key[0]}
            }
            self._clean[key] = forged
        return self._clean[key]


def generator_digest(generator: Family) -> str:
    """Of the weights that forge."""
    return array_digest(generator.tensors(("generator",)))
