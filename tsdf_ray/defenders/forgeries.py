"""Photos with their clean forgeries and mid features, by generator, each computed once: the reference of all losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

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
class Clean:
    """What one generator makes of clean photos: forgeries [B, 3, S, S], mid features [B, F, 32, 32]."""

    output_BCHW: torch.Tensor
    features_BFHW: torch.Tensor


@dataclass(frozen=True)
class Visit:
    """One batch: indices of its photos; by generator the target labels [B, A] asked for, and the clean side."""

    index: tuple[int, ...]
    target: Mapping[str, torch.Tensor]
    clean: Mapping[str, Clean]


class Forgeries:
    """Photos, the generators a defender knows, and the clean side of their forgeries.

    Raises MatchFailed when the knowledge holds no generator.
    """

    def __init__(self, knowledge: Knowledge, photos: FaceSet) -> None:
        if not knowledge.generators:
            raise MatchFailed("interruption needs a generator to learn against, the defender's knowledge has none")
        self.families: Mapping[str, Family] = knowledge.generators
        self.device = device_of(next(iter(self.families.values())))
        self.precision = Precision(knowledge.precision, self.device)
        self.x_BCHW = photos.images().to(self.device)
        names = {family.attributes for family in self.families.values()}
        self._labels = {attributes: photos.select(attributes).labels() for attributes in names}
        self._clean: dict[tuple[str, int, bytes], Clean] = {}
        self._bytes = 0

    def visit(self, index: Sequence[int], ask: Ask) -> Visit:
        """Photos `index` under the labels that `ask` wants, with their clean forgeries and features.

        Generators that edit the same attributes are asked for the same labels: `ask` is called once for them.
        """
        rows, asked = list(index), dict[tuple[str, ...], torch.Tensor]()
        target: dict[str, torch.Tensor] = {}
        found: dict[str, Clean] = {}
        for name, family in self.families.items():
            if family.attributes not in asked:
                asked[family.attributes] = ask(self._labels[family.attributes][rows], family.attributes)
            c_BA = target[name] = asked[family.attributes].to(self.device)
            keys = [(i, row.numpy().tobytes()) for i, row in zip(index, c_BA.cpu(), strict=True)]
            missing = [b for b, key in enumerate(keys) if (name, *key) not in self._clean]
            fresh: dict[int, Clean] = {}
            if missing:
                photos = self.x_BCHW[[index[b] for b in missing]]
                with torch.no_grad(), self.precision.autocast():
                    out, mid = family.edit_and_features(self.precision.laid_out(photos), c_BA[missing])
                out, mid = out.float(), at_most_feature_size(mid)
                fresh = {b: Clean(out[j], mid[j]) for j, b in enumerate(missing)}
            clean = [fresh[b] if b in fresh else self._clean[(name, *key)] for b, key in enumerate(keys)]
            found[name] = Clean(
                torch.stack([row.output_BCHW for row in clean]),
                at_feature_size(torch.stack([row.features_BFHW for row in clean])),
            )
            for b, row in fresh.items():
                self._keep((name, *keys[b]), row)
        return Visit(tuple(index), target, found)

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
