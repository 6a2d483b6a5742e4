"""A small learned denoiser: the attacker adds noise to clean photos of its own and learns to take it off again."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from tsdf_ray.errors import MatchFailed
from tsdf_ray.faces.faceset import FaceSet, to_images, to_pixels
from tsdf_ray.generators.base import Tensors
from tsdf_ray.randomness import torch_rng

PATCH = 64
"""Side of the patches it is trained on; smaller photos are taken whole."""
GRAINS = (1, 2, 4)
"""Sides of the noise's grains in pixels: perturbations are coarser than white noise."""
CHUNK = 64


class DenoiseStep(BaseModel):
    """`{kind: denoise}`: a small residual network, trained once per match on `collect.own` clean photos."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["denoise"] = Field("denoise", description="learned denoiser; needs collect.own")
    noise: float = Field(0.15, gt=0.0, le=1.0, description="largest amplitude it is trained on, on the [-1, 1] scale")
    steps: int = Field(200, ge=1, le=100_000, description="training steps")
    batch: int = Field(8, ge=1, le=512, description="patches of 64 px per step")
    width: int = Field(16, ge=1, le=256, description="channels of its layers")
    layers: int = Field(4, ge=2, le=32, description="3 x 3 convolutions")
    learning_rate: float = Field(4e-3, gt=0.0, le=1.0, description="Adam's step size, falling linearly to 0")


class Denoiser(nn.Module):
    """x - r(x), r a plain stack of convolutions (after Zhang et al., DnCNN, TIP 2017); fresh, it is the identity."""

    def __init__(self, config: DenoiseStep, rng: torch.Generator) -> None:
        super().__init__()
        widths = [3, *[config.width] * (config.layers - 1), 3]
        # Conv2d's own first weights come from the global generator, which is not ours to advance.
        with torch.random.fork_rng(devices=[]):
            layers = [nn.Conv2d(b, a, 3, padding=1, padding_mode="reflect") for b, a in pairwise(widths)]
        self.layers = nn.ModuleList(layers)
        for layer in layers:
            assert layer.bias is not None
            nn.init.kaiming_normal_(layer.weight, a=0.1, generator=rng)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(layers[-1].weight)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """float [B, 3, H, W] in [-1, 1] -> the same shape and range."""
        features = x_BCHW
        for layer in self.layers[:-1]:
            features = F.leaky_relu(layer(features), 0.1)
        residual_BCHW: torch.Tensor = self.layers[-1](features)
        return (x_BCHW - residual_BCHW).clamp(-1.0, 1.0)


def train_denoiser(config: DenoiseStep, own: FaceSet, run_seed: int) -> Tensors:
    """Weights that depend on the config, the photos and the seed alone.

    On the CPU, and whole on every worker of a role: the network is small, and all workers find the same weights.

    Raises MatchFailed when the loss is not finite.
    """
    rng = torch_rng(run_seed, 0, "attacker", "denoiser", config.model_dump_json())
    network = Denoiser(config, rng)
    optimiser = torch.optim.Adam(network.parameters(), config.learning_rate)
    pixels = torch.from_numpy(own.pixels_BCHW.copy())
    for step in range(config.steps):
        optimiser.param_groups[0]["lr"] = config.learning_rate * (1 - step / config.steps)
        clean_BCHW = _patches(pixels, config.batch, rng)
        noisy_BCHW = (clean_BCHW + config.noise * _noise(clean_BCHW, rng)).clamp(-1.0, 1.0)
        # The clamp's gradient is zero outside the range, where the photo is right anyway.
        loss = F.mse_loss(network(noisy_BCHW), clean_BCHW)
        if not bool(torch.isfinite(loss)):
            raise MatchFailed(f"purify: the denoiser's loss became {float(loss)} at step {step}; lower learning_rate")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def denoise(config: DenoiseStep, weights: Tensors, photos: FaceSet) -> FaceSet:
    """`photos` through a trained denoiser, on the 8-bit grid."""
    network = Denoiser(config, torch_rng(0, "replaced"))
    network.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    pixels = photos.pixels_BCHW.copy()
    with torch.inference_mode():
        for start in range(0, len(photos), CHUNK):
            chunk = to_images(torch.from_numpy(photos.pixels_BCHW[start : start + CHUNK].copy()))
            pixels[start : start + CHUNK] = to_pixels(network(chunk)).numpy()
    return photos.with_pixels(pixels)


def _patches(pixels_BCHW: torch.Tensor, count: int, rng: torch.Generator) -> torch.Tensor:
    """Patches at random places of random photos, as images."""
    photos, _, size, _ = pixels_BCHW.shape
    side = min(PATCH, size)
    photo_K = torch.randint(photos, (count,), generator=rng).tolist()
    corner_K2 = torch.randint(size - side + 1, (count, 2), generator=rng).tolist()
    patches = [pixels_BCHW[p, :, y : y + side, x : x + side] for p, (y, x) in zip(photo_K, corner_K2, strict=True)]
    return to_images(torch.stack(patches))


def _noise(like_BCHW: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Noise in [-1, 1] whose grain and amplitude are drawn per step and patch."""
    count, colours, side, _ = like_BCHW.shape
    grain = GRAINS[int(torch.randint(len(GRAINS), (1,), generator=rng))]
    cells = -(-side // grain)
    coarse = torch.randn(count, colours, cells, cells, generator=rng).clamp(-1.0, 1.0)
    # The square root draws strong noise more often: that is what is to be washed out.
    amplitude = torch.rand(count, 1, 1, 1, generator=rng).sqrt()
    return amplitude * coarse.repeat_interleave(grain, -1).repeat_interleave(grain, -2)[..., :side, :side]
