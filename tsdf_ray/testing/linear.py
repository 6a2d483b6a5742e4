"""A generator and a face detector so simple that what a defender should do to them can be computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tsdf_ray.detectors.base import Anchors, Boxes, Detector, RawOutput
from tsdf_ray.faces.faceset import HAIR, FaceSet
from tsdf_ray.generators.base import Family
from tsdf_ray.randomness import numpy_rng

CELL = 8
"""Side in pixels of the detector's cells."""


class Gains(nn.Module):
    """Two gains per colour channel, one for the output and one for the mid feature."""

    def __init__(self, output: tuple[float, ...], features: tuple[float, ...]) -> None:
        super().__init__()
        self.output = nn.Parameter(torch.tensor(output).reshape(1, 3, 1, 1))
        self.features = nn.Parameter(torch.tensor(features).reshape(1, 3, 1, 1))


class LinearFamily(Family):
    """G(x, c) = output gain * x + 0.1 * sum(c), E(x) = feature gain * x; not limited to [-1, 1]."""

    name: ClassVar[str] = "linear"
    attributes: tuple[str, ...] = (*HAIR, "Male")

    def __init__(
        self, output: tuple[float, ...] = (1.0, 1.0, 1.0), features: tuple[float, ...] = (1.0, 1.0, 1.0)
    ) -> None:
        self.gains = Gains(output, features)
        self.parts = {"generator": self.gains}

    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return self.gains.output * x_BCHW + 0.1 * c_BA.sum(1)[:, None, None, None]

    def features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return self.gains.features * x_BCHW

    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.edit(x_BCHW, c_BA), self.features(x_BCHW, c_BA)

    def discriminator_loss(
        self,
        x_BCHW: torch.Tensor,
        own_BA: torch.Tensor,
        target_BA: torch.Tensor,
        rng: torch.Generator,
        fake_BCHW: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        return {}

    def generator_loss(
        self,
        x_BCHW: torch.Tensor,
        own_BA: torch.Tensor,
        target_BA: torch.Tensor,
        rng: torch.Generator,
        fake_BCHW: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        fake_BCHW = self.edit(x_BCHW, target_BA) if fake_BCHW is None else fake_BCHW
        return {"g_cycle": F.l1_loss(self.edit(fake_BCHW, own_BA), x_BCHW)}

    def config_json(self) -> str:
        gains = {name: value.flatten().tolist() for name, value in self.gains.named_parameters()}
        return json.dumps(gains)


class BrightCells(Detector):
    """A "face" is an 8 x 8 cell that is bright: log-odds = `gain` * mean over the cell, box = the cell, a little larger
    the brighter it is. Features: the cells' colours, and the same at half the resolution."""

    name = "bright"
    feature_levels = ("cells", "halved")

    @classmethod
    def load(cls, weights: Path | None = None) -> BrightCells:
        return cls()

    def __init__(self, gain: float = 40.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain), requires_grad=False)

    def features(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cells = F.avg_pool2d(x_BCHW, CELL)
        return cells, F.avg_pool2d(cells, 2, ceil_mode=True)

    def raw(self, x_BCHW: torch.Tensor) -> RawOutput:
        features = self.features(x_BCHW)
        bright_BHW = features[0].mean(1)
        photos, rows, columns = bright_BHW.shape
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        corner_N2 = CELL * torch.stack([x, y], -1).reshape(-1, 2).repeat(photos, 1).to(x_BCHW.device)
        bright_N = bright_BHW.flatten()
        grown_N1 = bright_N[:, None]
        boxes_N4 = torch.cat([corner_N2 - grown_N1, corner_N2 + CELL + grown_N1], 1)
        photo_N = torch.arange(photos, device=x_BCHW.device).repeat_interleave(rows * columns)
        log_odds_N = self.gain * bright_N
        return RawOutput(features, (Anchors("cells", photo_N, log_odds_N.sigmoid(), log_odds_N, boxes_N4),))

    @torch.no_grad()
    def detect(self, x_BCHW: torch.Tensor, score_threshold: float = 0.7) -> list[Boxes]:
        (cells,) = self.raw(x_BCHW).groups
        found: list[Boxes] = []
        for photo in range(x_BCHW.shape[0]):
            mine = (cells.photo_N == photo) & (cells.scores_N > score_threshold)
            order = cells.scores_N[mine].argsort(descending=True)
            found.append(Boxes(cells.boxes_N4[mine][order], cells.scores_N[mine][order]))
        return found


def dark_photos_with_a_bright_cell(count: int, size: int = 32, seed: int = 0) -> FaceSet:
    """`count` noisy dark photos, each with one cell that `BrightCells` takes for a face; labels vary."""
    rng = numpy_rng(seed, "testing", "photos")
    pixels = rng.integers(20, 100, (count, 3, size, size), dtype=np.uint8)
    for photo in pixels:
        top, left = CELL * rng.integers(0, size // CELL, 2)
        photo[:, top : top + CELL, left : left + CELL] = rng.integers(131, 137, (3, CELL, CELL))
    labels = np.zeros((count, len(HAIR) + 1), dtype=np.uint8)
    labels[np.arange(count), rng.integers(0, len(HAIR), count)] = 1
    labels[:, -1] = rng.integers(0, 2, count)
    return FaceSet(pixels, labels, (*HAIR, "Male"), tuple(f"photo-{number}" for number in range(count)))
