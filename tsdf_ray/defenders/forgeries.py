"""Photos with their clean forgeries and mid features, by generator, each computed once: the reference of all losses.

A batch is computed in parts: photos of a micro-batch under one generator, generators outermost. Workers of a crew share
the parts; each holds the clean side of its own alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from tsdf_ray.crew import pieces
from tsdf_ray.defenders.base import Knowledge
from tsdf_ray.defenders.precision import Precision
from tsdf_ray.errors import MatchFailed
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.base import Family

FEATURE_SIDE = 32
"""Mid features are compared at 32 x 32."""
CACHE_BYTES = 1 << 30
"""Clean outputs kept at most; the oldest leave first. One photo under one condition takes 1 to 2 MB at 256 px."""

Ask = Callable[[torch.Tensor, tuple[str, ...]], torch.Tensor]
"""(own labels [B, A], their names) -> target labels [B, A] of the forgeries that are asked for."""


@dataclass(frozen=True)
class Part:
    """What is computed at once: rows of a batch, under one generator."""

    generator: str
    rows: range

    @property
    def slice(self) -> slice:
        """The rows, to index with."""
        return slice(self.rows.start, self.rows.stop)


@dataclass(frozen=True)
class Clean:
    """What one generator makes of clean photos: forgeries [B, 3, S, S], mid features [B, F, 32, 32]."""

    output_BCHW: torch.Tensor
    features_BFHW: torch.Tensor
    first: int = 0
    """The row of the batch that stands first here."""

    def take(self, rows: range) -> Clean:
        """These rows of the batch."""
        own = slice(rows.start - self.first, rows.stop - self.first)
        return Clean(self.output_BCHW[own], self.features_BFHW[own], rows.start)


@dataclass(frozen=True)
class Visit:
    """One batch: indices of its photos and the photos; by generator the target labels [B, A] asked for, and the clean
    side of those parts that are this worker's (a worker alone: of the batch)."""

    index: tuple[int, ...]
    x_BCHW: torch.Tensor
    target: Mapping[str, torch.Tensor]
    clean: Mapping[str, Clean]


class Forgeries:
    """Photos, the generators a defender knows, and the clean side of their forgeries.

    `batch`: photos of a batch at most; the knowledge says how many of them are computed at once (None: all). Raises
    MatchFailed when the knowledge holds no generator.
    """

    def __init__(self, knowledge: Knowledge, photos: FaceSet, batch: int | None = None) -> None:
        if not knowledge.generators:
            raise MatchFailed("interruption needs a generator to learn against, the defender's knowledge has none")
        self.families: Mapping[str, Family] = knowledge.generators
        self.device = device_of(next(iter(self.families.values())))
        self.precision = Precision(knowledge.precision, self.device)
        self.crew = knowledge.seat.crew
        self.at_once = None if batch is None else knowledge.at_once(batch)
        # Where they take no room of the networks': a collection may be larger than a device.
        self.x_BCHW = photos.images()
        self._shown: tuple[tuple[int, ...], torch.Tensor] = ((), torch.zeros(0))
        names = {family.attributes for family in self.families.values()}
        self._labels = {attributes: photos.select(attributes).labels() for attributes in names}
        self._costs = self._counted() if self.crew.size > 1 and len(self.families) > 1 and len(photos) else {}
        self._clean: dict[tuple[str, int, bytes], Clean] = {}
        self._bytes = 0

    def parts(self, batch: int) -> list[Part]:
        """All parts of a batch of so many photos, generators outermost: the items of a sum."""
        return [Part(name, rows) for name in self.families for rows in pieces(batch, self.at_once)]

    def _counted(self) -> dict[str, float]:
        """What a forgery costs, by generator: operations, which every worker counts alike, unlike seconds."""
        costs = {}
        for name, family in self.families.items():
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                family.edit_and_features(
                    self.x_BCHW[:1].to(self.device), self._labels[family.attributes][:1].to(self.device)
                )
            costs[name] = float(max(1, counter.get_total_flops()))
        return costs

    def costs(self, parts: Sequence[Part]) -> list[float] | None:
        """Of the parts, relative to each other; None: they are shared by number."""
        return [self._costs[part.generator] * len(part.rows) for part in parts] if self._costs else None

    def needed(self, batch: int) -> dict[str, range]:
        """By generator, the rows whose clean side this worker needs: those of its own parts."""
        everything, rows = self.parts(batch), dict[str, range]()
        for part in (everything[n] for n in self.crew.mine(len(everything), self.costs(everything))):
            rows[part.generator] = range(rows.get(part.generator, part.rows).start, part.rows.stop)
        return rows

    def visit(self, index: Sequence[int], ask: Ask) -> Visit:
        """Photos `index` under the labels that `ask` wants, with their clean forgeries and features.

        Generators that edit the same attributes are asked for the same labels: `ask` is called once for them.
        """
        rows, asked = list(index), dict[tuple[str, ...], torch.Tensor]()
        if self._shown[0] != tuple(rows):
            self._shown = tuple(rows), self.x_BCHW[rows].to(self.device)
        x_BCHW, needed = self._shown[1], self.needed(len(rows))
        target: dict[str, torch.Tensor] = {}
        found: dict[str, Clean] = {}
        for name, family in self.families.items():
            if family.attributes not in asked:
                asked[family.attributes] = ask(self._labels[family.attributes][rows], family.attributes)
            c_BA = target[name] = asked[family.attributes].to(self.device)
            if name not in needed:
                continue
            micro = pieces(len(rows), self.at_once)
            if len(micro) == 1:
                found[name] = self._remembered(name, index, x_BCHW, c_BA)
            else:
                # Not remembered: next time another worker needs them, in other company, with other rounding.
                own = [part for part in micro if part.start in needed[name]]
                made = [self._make(name, x_BCHW[part.start : part.stop], c_BA[part.start : part.stop]) for part in own]
                features = torch.cat([at_feature_size(part.features_BFHW) for part in made])
                found[name] = Clean(torch.cat([part.output_BCHW for part in made]), features, own[0].start)
        return Visit(tuple(index), x_BCHW, target, found)

    def _make(self, name: str, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> Clean:
        """One pass; features as they are kept."""
        with torch.no_grad(), self.precision.autocast():
            out, mid = self.families[name].edit_and_features(self.precision.laid_out(x_BCHW), c_BA)
        return Clean(out.float(), at_most_feature_size(mid))

    def _remembered(self, name: str, index: Sequence[int], x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> Clean:
        """Of a batch computed at once: only what was not asked for before is computed."""
        keys = [(i, row.numpy().tobytes()) for i, row in zip(index, c_BA.cpu(), strict=True)]
        missing = [b for b, key in enumerate(keys) if (name, *key) not in self._clean]
        fresh: dict[int, Clean] = {}
        if missing:
            made = self._make(name, x_BCHW[missing], c_BA[missing])
            fresh = {b: Clean(made.output_BCHW[j], made.features_BFHW[j]) for j, b in enumerate(missing)}
        rows = [fresh[b] if b in fresh else self._clean[(name, *key)] for b, key in enumerate(keys)]
        for b, row in fresh.items():
            self._keep((name, *keys[b]), row)
        features = at_feature_size(torch.stack([row.features_BFHW for row in rows]))
        return Clean(torch.stack([row.output_BCHW for row in rows]), features)

    def _keep(self, key: tuple[str, int, bytes], row: Clean) -> None:
        self._clean[key] = Clean(row.output_BCHW.clone(), row.features_BFHW.clone())
        self._bytes += row.output_BCHW.nbytes + row.features_BFHW.nbytes
        while self._bytes > CACHE_BYTES:
            oldest = self._clean.pop(next(iter(self._clean)))
            self._bytes -= oldest.output_BCHW.nbytes + oldest.features_BFHW.nbytes


def mean_square(a_BCHW: torch.Tensor, b_BCHW: torch.Tensor) -> torch.Tensor:
    """Mean squared difference per photo: [B]."""
    return (a_BCHW - b_BCHW).square().mean(dim=(1, 2, 3))


def at_feature_size(features_BFHW: torch.Tensor) -> torch.Tensor:
    """Mid features as float32, resized bilinearly to 32 x 32."""
    features = features_BFHW.float()
    if features.shape[-2:] == (FEATURE_SIDE, FEATURE_SIDE):
        return features
    return F.interpolate(features, size=(FEATURE_SIDE, FEATURE_SIDE), mode="bilinear", align_corners=False)


def at_most_feature_size(features_BFHW: torch.Tensor) -> torch.Tensor:
    """Mid features as float32, resized where they are larger: what is kept (AttGAN's are 8 x 8)."""
    small = features_BFHW.shape[-1] < FEATURE_SIDE and features_BFHW.shape[-2] < FEATURE_SIDE
    return features_BFHW.float() if small else at_feature_size(features_BFHW)


def device_of(family: Family) -> torch.device:
    """Where the family's weights are."""
    for module in family.parts.values():
        for parameter in module.parameters():
            return parameter.device
    return torch.device("cpu")
