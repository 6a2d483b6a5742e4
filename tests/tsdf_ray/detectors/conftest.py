"""Photos for the detectors' tests: float32 [B, 3, 128, 128] in [-1, 1], antialiased."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


def read_photo(path: Path, side: int = 128) -> torch.Tensor:
    """One photo [3, side, side]: the centre square, shrunk with antialiasing."""
    with Image.open(path) as image:
        width, height = image.size
        square = min(width, height)
        left, top = (width - square) // 2, (height - square) // 2
        box = (left, top, left + square, top + square)
        pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS, box=box))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1


@pytest.fixture(scope="session")
def synthetic_faces(assets: Path) -> torch.Tensor:
    """100 synthetic faces."""
    files = sorted((assets / "synthetic-faces" / "images").iterdir())[:100]
    return torch.stack([read_photo(file) for file in files])


@pytest.fixture(scope="session")
def celeba_faces(assets: Path) -> torch.Tensor:
    """The first 500 CelebA photos (178 x 218), centre crop 178."""
    files = sorted((assets / "celeba-8k" / "img_align_celeba").iterdir())[:500]
    return torch.stack([read_photo(file) for file in files])


@pytest.fixture(scope="session")
def crowd(assets: Path) -> torch.Tensor:
    """A street full of people, [1, 3, H, W] at its own size (within 1024 px)."""
    with Image.open(assets / "photos" / "0_Parade_marchingband_1_765.jpg") as image:
        image.thumbnail((1024, 1024))
        pixels = np.asarray(image.convert("RGB")).copy()
    return torch.from_numpy(pixels).permute(2, 0, 1).float()[None] / 127.5 - 1
