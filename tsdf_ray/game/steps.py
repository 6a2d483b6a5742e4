"""What passes between roles and to the store: plain data of numpy arrays and Arrow tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tsdf_ray.attackers import Prepared, Retrained, Work
from tsdf_ray.faces import FaceSet
from tsdf_ray.game.spec import MatchSpec
from tsdf_ray.generators import Tensors


@dataclass(frozen=True)
class Learned:
    """The defender's state after `learn`, and a digest of it."""

    tensors: Tensors
    digest: str


@dataclass(frozen=True)
class Published:
    """Photos after perturbation and channel: those the attacker may collect this round, and the evaluation split."""

    collectable: FaceSet
    chosen_N: npt.NDArray[np.intp]
    """Index of each collectable photo in the attacker's split."""
    evaluation: FaceSet


@dataclass(frozen=True)
class Measured:
    """Rows of one evaluation (see docs/run-directory.md), and sample pictures for the report."""

    rows: pa.Table
    samples: dict[str, npt.NDArray[Any]]
    notes: dict[str, str]
    """Metadata of the samples: ids, edits (JSON)."""
    work: tuple[Work, ...] = ()
    """Purifications before forging."""


@dataclass(frozen=True)
class Standing:
    """Where a match stands: the last finished round, the weights then, and what later rounds look back on."""

    round: int
    generator: Tensors
    pool: tuple[FaceSet, ...] = ()
    published: tuple[FaceSet, ...] = ()
    """Evaluation photos as published in rounds 1..round."""


@dataclass(frozen=True)
class RoundResult:
    """Everything a finished round leaves."""

    match: MatchSpec
    round: int
    learned: Learned
    published: FaceSet
    usable: FaceSet
    """What the attacker could use of this round's photos, as it will train on them."""
    retrained: Retrained
    rows: pa.Table
    samples: dict[str, npt.NDArray[Any]]
    notes: dict[str, str]

    @property
    def generator(self) -> Tensors:
        """G_r, all parts."""
        return self.retrained.tensors

    @staticmethod
    def of(match: MatchSpec, round: int, outcome: dict[str, Any]) -> RoundResult:
        """From the results of the round's steps, by step name."""
        learned: Learned = outcome["learn"]
        published: Published = outcome["publish"]
        prepared: Prepared = outcome["prepare"]
        retrained: Retrained = outcome["retrain"]
        before: Measured = outcome["before"]
        after: Measured = outcome["after"]
        rows = pa.concat_tables([before.rows, after.rows])
        keys = {"seed": match.seed, "defender": match.defender, "attacker": match.attacker}
        for position, (name, value) in enumerate(keys.items()):
            kind = pa.int64() if isinstance(value, int) else pa.string()
            rows = rows.add_column(position, name, pa.array([value] * rows.num_rows, kind))
        return RoundResult(
            match,
            round,
            learned,
            published.evaluation,
            prepared.photos,
            retrained,
            rows,
            before.samples | after.samples,
            before.notes | after.notes,
        )
