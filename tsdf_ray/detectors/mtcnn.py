"""MTCNN: a cascade of three small networks (Zhang et al., IEEE SPL 2016), with the weights of the `mtcnn` package.

- P-Net slides a 12 px window over an image pyramid; its map at every scale is a group of anchors.
- R-Net and O-Net look at 24 and 48 px crops of what the stage before kept. Which crops are made is decided without a
  gradient; the resampling of the crops and all that follows is differentiable, so the photos get one.

Features (for eq. 12): the last feature map of each network, run as a convolution over the whole photo at the scale at
which a face of `feature_face` of the photo's shorter side fills the network's window. Crops are ragged and change with
the perturbation; these maps have one shape per photo size and lie over the photo, so that clean and poisoned maps, and
the separation mask, can be compared place by place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from tsdf_ray.detectors.base import Anchors, Boxes, Detector, RawOutput, check_photos
from tsdf_ray.detectors.geometry import Overlap, nms
from tsdf_ray.detectors.resample import area_resize, crop_boxes
from tsdf_ray.detectors.weights import put_weights

WINDOW, STRIDE = 12, 2
"""P-Net's window and the step between two windows, in pixels of the scaled photo."""
R_SIDE, O_SIDE = 24, 48
INPUT_SCALE = 127.5 / 128
"""The networks were trained on (pixel - 127.5) / 128."""


class MTCNNConfig(BaseModel):
    """How the cascade searches; the defaults are the package's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_face: float = Field(default=20, ge=12, le=1024, description="side of the smallest face searched, in pixels")
    scale_factor: float = Field(default=0.709, gt=0.3, lt=0.95, description="ratio of two neighbouring pyramid scales")
    pnet_score: float = Field(default=0.6, gt=0, lt=1, description="P-Net windows above this score go on")
    rnet_score: float = Field(default=0.7, gt=0, lt=1, description="R-Net crops above this score go on")
    feature_face: float = Field(
        default=0.6,
        ge=0.2,
        le=1,
        description="size of the face that the features are tuned to, as a share of the shorter side",
    )
    max_crops: int = Field(
        default=300, ge=1, le=5000, description="most crops of one photo that R-Net looks at, best first"
    )


class _PReLU(nn.Module):
    """x where x > 0, else slope * x, per channel.

    Under a gradient not by torch's kernel: that one differentiates the slopes too, which are frozen, at twice the time.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return F.prelu(x, self.weight)
        slope = self.weight.view(-1, *[1] * (x.dim() - 2))
        return torch.addcmul(slope * x, 1 - slope, x.relu())


class _PNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), _PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), _PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), _PReLU(32)
        self.box, self.face = nn.Conv2d(32, 4, 1), nn.Conv2d(32, 2, 1)

    def trunk(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.prelu1(self.conv1(_channels_last(x))), 2, ceil_mode=True)
        out: torch.Tensor = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return out

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """log-odds [B, h, w] and box offsets [B, h, w, 4] of each window."""
        x = self.trunk(x)
        face: torch.Tensor = self.face(x)
        offsets: torch.Tensor = self.box(x)
        return face[:, 1] - face[:, 0], offsets.permute(0, 2, 3, 1)


class _RNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), _PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), _PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), _PReLU(64)
        self.fc, self.prelu_fc = nn.Linear(576, 128), _PReLU(128)
        self.box, self.face = nn.Linear(128, 4), nn.Linear(128, 2)

    def trunk(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.prelu1(self.conv1(_channels_last(x))), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2)
        out: torch.Tensor = self.prelu3(self.conv3(x))
        return out

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """log-odds [K] and box offsets [K, 4] of each crop."""
        x = self.prelu_fc(self.fc(self.trunk(x).flatten(1)))
        face: torch.Tensor = self.face(x)
        return face[:, 1] - face[:, 0], self.box(x)


class _ONet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), _PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), _PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), _PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), _PReLU(128)
        self.fc, self.prelu_fc = nn.Linear(1152, 256), _PReLU(256)
        self.box, self.face = nn.Linear(256, 4), nn.Linear(256, 2)
        self.landmarks = nn.Linear(256, 10)  # in the weights; never run

    def trunk(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.prelu1(self.conv1(_channels_last(x))), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2)
        x = F.max_pool2d(self.prelu3(self.conv3(x)), 2, ceil_mode=True)
        out: torch.Tensor = self.prelu4(self.conv4(x))
        return out

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """log-odds [K] and box offsets [K, 4] of each crop."""
        x = self.prelu_fc(self.fc(self.trunk(x).flatten(1)))
        face: torch.Tensor = self.face(x)
        return face[:, 1] - face[:, 0], self.box(x)


@dataclass(frozen=True)
class Crops:
    """Where a network looks: boxes_K4 float32 (squares, in pixels), photo_K int64 (which photo), the crop's side."""

    boxes_K4: torch.Tensor
    photo_K: torch.Tensor
    side: int


class MTCNN(Detector):
    """Anchors: a group `pnet@<scale>` per pyramid scale, then `rnet` and `onet` (empty when no crop reaches them)."""

    name = "mtcnn"
    feature_levels = ("pnet", "rnet", "onet")

    def __init__(self, config: MTCNNConfig | None = None) -> None:
        super().__init__()
        self.config = config or MTCNNConfig()
        self.pnet, self.rnet, self.onet = _PNet(), _RNet(), _ONet()

    @classmethod
    def load(cls, weights: Path | None = None, config: MTCNNConfig | None = None) -> MTCNN:
        detector = cls(config)
        put_weights(detector, cls.name, weights)
        return detector.eval().requires_grad_(False)

    def features(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        check_photos(x_BCHW)
        return self._features(x_BCHW * INPUT_SCALE)

    def raw(self, x_BCHW: torch.Tensor, crops: tuple[Crops, Crops] | None = None) -> RawOutput:
        """As in the contract; given `crops` (of the clean photos, say), R-Net and O-Net look there instead."""
        check_photos(x_BCHW)
        x_BCHW = x_BCHW * INPUT_SCALE
        return RawOutput(self._features(x_BCHW), tuple(self._cascade(x_BCHW, crops)[0]))

    @torch.no_grad()
    def crops(self, x_BCHW: torch.Tensor) -> tuple[Crops, Crops]:
        """The crops of the photos that R-Net and O-Net look at."""
        check_photos(x_BCHW)
        return self._cascade(x_BCHW * INPUT_SCALE)[1]

    @torch.no_grad()
    def detect(self, x_BCHW: torch.Tensor, score_threshold: float = 0.7) -> list[Boxes]:
        check_photos(x_BCHW)
        faces = self._cascade(x_BCHW * INPUT_SCALE)[0][-1]
        boxes_K4, scores_K, photo_K = _keep(faces, score_threshold, 0.7, overlap="min")
        return Boxes.per_photo(boxes_K4, scores_K, photo_K, len(x_BCHW))

    def _features(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        height, width = x_BCHW.shape[-2:]
        face = self.config.feature_face * min(height, width)
        maps = []
        for net, side in ((self.pnet, WINDOW), (self.rnet, R_SIDE), (self.onet, O_SIDE)):
            scale = min(1.0, side / face)
            maps.append(net.trunk(area_resize(x_BCHW, round(height * scale), round(width * scale))))
        return tuple(maps)

    def _cascade(
        self, x_BCHW: torch.Tensor, crops: tuple[Crops, Crops] | None = None
    ) -> tuple[list[Anchors], tuple[Crops, Crops]]:
        groups = [self._windows(x_BCHW, scale) for scale in self._scales(*x_BCHW.shape[-2:])]
        for_r = crops[0] if crops else self._crops_for_r(groups)
        refined = _look(self.rnet, "rnet", x_BCHW, for_r)
        for_o = crops[1] if crops else self._crops_for_o(refined)
        return [*groups, refined, _look(self.onet, "onet", x_BCHW, for_o)], (for_r, for_o)

    @torch.no_grad()
    def _crops_for_r(self, groups: list[Anchors]) -> Crops:
        kept = [_keep(group, self.config.pnet_score, 0.5) for group in groups]
        boxes_K4, scores_K, photo_K = (torch.cat(parts) for parts in zip(*kept, strict=True))
        best_K = nms(boxes_K4, scores_K, photo_K, 0.7, limit=self.config.max_crops)
        return Crops(_square(boxes_K4[best_K]), photo_K[best_K], R_SIDE)

    @torch.no_grad()
    def _crops_for_o(self, refined: Anchors) -> Crops:
        boxes_K4, _, photo_K = _keep(refined, self.config.rnet_score, 0.7)
        return Crops(_square(boxes_K4), photo_K, O_SIDE)

    def _scales(self, height: int, width: int) -> list[float]:
        """From `min_face` filling P-Net's window up to the largest face that fits the photo."""
        scales, scale = [], min(1.0, WINDOW / self.config.min_face)
        while min(height, width) * scale >= WINDOW:
            scales.append(scale)
            scale *= self.config.scale_factor
        return scales

    def _windows(self, x_BCHW: torch.Tensor, scale: float) -> Anchors:
        height, width = x_BCHW.shape[-2:]
        h, w = int(height * scale), int(width * scale)
        log_odds_Bhw, offsets_Bhw4 = self.pnet(area_resize(x_BCHW, h, w))
        rows, columns = log_odds_Bhw.shape[1:]
        y, x = (torch.arange(count, device=x_BCHW.device).to(x_BCHW) * STRIDE for count in (rows, columns))
        y_hw, x_hw = torch.meshgrid(y, x, indexing="ij")
        windows_hw4 = torch.stack([x_hw, y_hw, x_hw + WINDOW, y_hw + WINDOW], dim=-1)
        to_photo_4 = x_BCHW.new_tensor([width / w, height / h] * 2)
        boxes_N4 = ((windows_hw4 + offsets_Bhw4 * WINDOW) * to_photo_4).reshape(-1, 4)
        photo_N = torch.arange(len(x_BCHW), device=x_BCHW.device).repeat_interleave(rows * columns)
        log_odds_N = log_odds_Bhw.flatten()
        return Anchors(f"pnet@{scale:.3f}", photo_N, log_odds_N.sigmoid(), log_odds_N, boxes_N4)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    """The same values in the memory layout in which CPU max pooling is up to ten times faster."""
    return x.contiguous(memory_format=torch.channels_last)


def _look(net: nn.Module, name: str, x_BCHW: torch.Tensor, crops: Crops) -> Anchors:
    """Run R-Net or O-Net on all crops of the batch in one pass; its offsets count in the crop's side plus one."""
    boxes_K4 = crops.boxes_K4
    if len(boxes_K4):
        log_odds_K, offsets_K4 = net(crop_boxes(x_BCHW, boxes_K4, crops.photo_K, crops.side))
    else:
        log_odds_K, offsets_K4 = x_BCHW.new_zeros(0), x_BCHW.new_zeros(0, 4)
    size_K4 = (boxes_K4[:, 2:] - boxes_K4[:, :2] + 1).repeat(1, 2)
    return Anchors(name, crops.photo_K, log_odds_K.sigmoid(), log_odds_K, boxes_K4 + offsets_K4 * size_K4)


def _keep(
    group: Anchors, score: float, nms_iou: float, overlap: Overlap = "union"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes, scores and photo indices of the anchors above `score` that survive NMS, by photo, best first."""
    found_K = (group.scores_N > score).nonzero().flatten()
    boxes_K4, scores_K, photo_K = group.boxes_N4[found_K], group.scores_N[found_K], group.photo_N[found_K]
    kept = nms(boxes_K4, scores_K, photo_K, nms_iou, overlap=overlap)
    return boxes_K4[kept], scores_K[kept], photo_K[kept]


def _square(boxes_K4: torch.Tensor) -> torch.Tensor:
    """The smallest squares of the same centres that contain the boxes."""
    centre_K2 = (boxes_K4[:, :2] + boxes_K4[:, 2:]) / 2
    half_K1 = (boxes_K4[:, 2:] - boxes_K4[:, :2]).amax(dim=1, keepdim=True) / 2
    return torch.cat([centre_K2 - half_K1, centre_K2 + half_K1], dim=1)
