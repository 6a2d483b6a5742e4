"""Roles that do nothing, at once: what is left of a match is what playing itself costs (`bench control`)."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tsdf_ray.attackers import Prepared, Retrained, Studied
from tsdf_ray.crew import ALONE, Seat
from tsdf_ray.faces import FaceSet, Splits
from tsdf_ray.game.match import Cast
from tsdf_ray.game.materials import Materials
from tsdf_ray.game.spec import MatchSpec
from tsdf_ray.game.steps import Learned, Measured, Published
from tsdf_ray.generators import Tensors
from tsdf_ray.metrics.rows import Stage, make_rows

SIDE = 8


def null_materials() -> Materials:
    """Two photos of 8 px for everyone, and a generator of four weights."""
    photos = FaceSet(np.zeros((2, 3, SIDE, SIDE), np.uint8), np.zeros((2, 1), np.uint8), ("Male",), ("a", "b"))
    return Materials(Splits(photos, photos, photos), {"generator.weight": np.zeros(4, np.float32)})


class _Null:
    def __init__(self, match: MatchSpec, materials: Materials, seat: Seat = ALONE) -> None:
        self._photos = materials.splits.evaluation


class DefenderRole(_Null):
    """Learns zeros and publishes the photos as they are."""

    def learn(self, round: int, generator: Tensors | None) -> Learned:
        return Learned({"w": np.zeros((1, 3, SIDE, SIDE), np.float32)}, f"w{round}")

    def publish(self, round: int, learned: Learned, generator: Tensors | None) -> Published:
        return Published(self._photos, np.arange(len(self._photos)), self._photos)


class AttackerRole(_Null):
    """Uses every photo and trains nothing."""

    def study(self, round: int, published: Published) -> Studied:
        return Studied({})

    def prepare(self, round: int, published: Published, studied: Studied) -> Prepared:
        n = len(published.collectable)
        none, boxes = np.zeros(n, np.bool_), np.zeros((n, 4), np.float32)
        return Prepared(published.collectable, np.arange(n), none, none, boxes, boxes[:, 0])

    def retrain(self, round: int, generator: Tensors, prepared: Prepared, *earlier: FaceSet) -> Retrained:
        return Retrained(generator, {}, 0, {}, reason="a null role")


class EvaluatorRole(_Null):
    """One row before, one after."""

    def before(self, round: int, generator: Tensors, published: Published, studied: Studied) -> Measured:
        return Measured(self._rows(Stage(round, round - 1, "before")), {}, {})

    def after(self, round: int, *seen: object) -> Measured:
        return Measured(self._rows(Stage(round, round, "after")), {}, {})

    def _rows(self, stage: Stage) -> pa.Table:
        return make_rows(stage, self._photos.ids, {"protection": (np.zeros(2), np.ones(2))}, ["Male", "Male"])


NULL_CAST = Cast(DefenderRole, AttackerRole, EvaluatorRole)
