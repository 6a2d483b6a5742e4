"""LPIPS v0.1 with AlexNet (Zhang et al. 2018, github.com/richzhang/PerceptualSimilarity): how a change looks.

The linear layers come with torchmetrics. The AlexNet is the user's file: torchvision's `alexnet-owt-7be5be79.pth` as it
is published (or a safetensors file of the same tensors), of which the convolutions are read. Nothing is downloaded.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Self

import torch
from torch.nn import functional as F

from tsdf_ray.detectors.weights import read_state
from tsdf_ray.errors import UserError

LAYERS = (
    # Place in torchvision's alexnet.features, output and input channels, kernel, stride, padding.
    (0, 64, 3, 11, 4, 2),
    (3, 192, 64, 5, 1, 2),
    (6, 384, 192, 3, 1, 1),
    (8, 256, 384, 3, 1, 1),
    (10, 256, 256, 3, 1, 1),
)
POOLED = (3, 6)
"""Before these convolutions stands a max pooling of 3 pixels, stride 2."""
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""From [-1, 1] to the normalisation of ImageNet."""
_EPS = 1e-10


class Lpips:
    """The distance of two photos; 0 for equal ones. `features` holds torchvision's names, `features.0.weight` etc."""

    def __init__(self, features: dict[str, torch.Tensor], linear: dict[str, torch.Tensor]) -> None:
        self._features = features
        self._linear = [linear[f"lin{i}.model.1.weight"] for i in range(len(LAYERS))]

    def to(self, device: str | torch.device) -> Self:
        """Move its weights to a device. Returns itself."""
        self._features = {name: weight.to(device) for name, weight in self._features.items()}
        self._linear = [weight.to(device) for weight in self._linear]
        return self

    @torch.inference_mode()
    def distance(self, a_BCHW: torch.Tensor, b_BCHW: torch.Tensor) -> torch.Tensor:
        """Float64 [B] of photos [B, 3, H, W] in [-1, 1], 32 px or more."""
        total = torch.zeros(len(a_BCHW), dtype=torch.float64)
        for a, b, weight in zip(self._seen(a_BCHW), self._seen(b_BCHW), self._linear, strict=True):
            apart = F.conv2d((a - b).square(), weight.to(a.device))
            total += apart.mean((1, 2, 3)).double().cpu()
        return total

    def _seen(self, x_BCHW: torch.Tensor) -> list[torch.Tensor]:
        """Unit vectors per place after each of the five convolutions."""
        shift, scale = (torch.tensor(values, device=x_BCHW.device)[:, None, None] for values in (SHIFT, SCALE))
        h, seen = (x_BCHW.float() - shift) / scale, []
        for place, _, _, _, stride, padding in LAYERS:
            if place in POOLED:
                h = F.max_pool2d(h, 3, 2)
            weight, bias = (self._features[f"features.{place}.{kind}"].to(h.device) for kind in ("weight", "bias"))
            h = F.relu(F.conv2d(h, weight, bias, stride, padding))
            seen.append(h / (h.square().sum(1, keepdim=True).sqrt() + _EPS))
        return seen


def load_lpips(file: str, key: str = "evaluation.lpips") -> Lpips:
    """LPIPS over the AlexNet in `file`; `key` names the scenario's key in errors.

    Raises UserError: no such file, unreadable, or not torchvision's AlexNet (names and shapes of the convolutions).
    """
    try:
        found = read_state(Path(file))
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    features: dict[str, torch.Tensor] = {}
    for place, c_out, c_in, kernel, _, _ in LAYERS:
        for kind, shape in (("weight", (c_out, c_in, kernel, kernel)), ("bias", (c_out,))):
            name = f"features.{place}.{kind}"
            given = tuple(found[name].shape) if name in found else None
            if given != shape:
                raise UserError(
                    f"{key}: {file}: tensor {name!r}: expected shape {shape}, found {given}; "
                    "give torchvision's alexnet-owt-7be5be79.pth"
                )
            features[name] = found[name].float()
    return Lpips(features, _linear())


def _linear() -> dict[str, torch.Tensor]:
    path = files("torchmetrics").joinpath("functional", "image", "lpips_models", "alex.pth")
    try:
        with path.open("rb") as file:
            linear: dict[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError("evaluation.lpips: torchmetrics came without its LPIPS layers; reinstall it") from error
    return linear
