"""Photos for the scripts that build the packaged sample: reading, framing, random views."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from face_lists import ATTRIBUTES
from PIL import Image
from torch.nn import functional as F

STORED = 144
"""Side in pixels at which photos are kept in memory: a little more than the 128 px that random views sample."""


def square(path: Path, size: int) -> Image.Image:
    """The photo's centre square at `size` px, resized with antialiasing."""
    with Image.open(path) as file:
        photo = file.convert("RGB")
        side = min(photo.size)
        left, top = (photo.width - side) / 2, (photo.height - side) / 2
        return photo.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))


def load(paths: list[Path], size: int = STORED) -> torch.Tensor:
    """uint8 [B, size, size, 3]."""
    out = np.empty((len(paths), size, size, 3), np.uint8)
    for row, path in enumerate(paths):
        out[row] = np.asarray(square(path, size))
    return torch.from_numpy(out)


def celeba_table(folder: Path) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Names, labels int64 [B, 4] of 0 and 1 in the order of ATTRIBUTES, parts int64 [B] (0 train, 1 val, 2 test)."""
    lines = (folder / "list_attr_celeba.txt").read_text().splitlines()
    columns = [lines[1].split().index(name) + 1 for name in ATTRIBUTES]
    rows = [line.split() for line in lines[2:] if line.strip()]
    part = dict(line.split() for line in (folder / "list_eval_partition.txt").read_text().splitlines() if line.strip())
    names = [row[0] for row in rows]
    labels = torch.tensor([[int(row[c] == "1") for c in columns] for row in rows])
    return names, labels, torch.tensor([int(part[name]) for name in names])


def celeba_photos(folder: Path, names: list[str]) -> torch.Tensor:
    """uint8 [B, 144, 144, 3], centre crops."""
    return load([folder / "img_align_celeba" / name for name in names])


def to_square(pixels_BHW3: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, size, size] in [-1, 1], antialiased."""
    x = pixels_BHW3.permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False).clamp(-1, 1)


def draw_views(pixels_BHW3: torch.Tensor, size: int, rng: torch.Generator) -> torch.Tensor:
    """Random views as float32 [B, 3, size, size] in [-1, 1]: mirror, scale, turn, shift, tone, blur, noise."""
    x = pixels_BHW3.permute(0, 3, 1, 2).float() / 127.5 - 1
    b = len(x)

    def uniform(low: float, high: float, shape: tuple[int, ...] = (b,)) -> torch.Tensor:
        return torch.rand(shape, generator=rng) * (high - low) + low

    scale, angle = uniform(0.75, 1.1), uniform(-10, 10) * math.pi / 180
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = scale * angle.cos() * mirror, -scale * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = scale * angle.sin() * mirror, scale * angle.cos()
    theta[:, :, 2] = uniform(-0.12, 0.12, (b, 2))
    soft = bool(uniform(0, 1, (1,)) < 0.25)  # the whole batch at lower resolution: blur
    side = int(uniform(size * 0.4, size * 0.8, (1,))) if soft else size
    grid = F.affine_grid(theta, [b, 3, side, side], align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    if soft:
        x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    shape = (b, 1, 1, 1)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * uniform(0.75, 1.25, shape)
    x = x * uniform(0.8, 1.2, shape) + uniform(-0.12, 0.12, shape) + uniform(-0.04, 0.04, (b, 3, 1, 1))
    x = x + torch.randn(x.shape, generator=rng) * uniform(0, 0.05, shape)
    return x.clamp(-1, 1)
