"""PSNR and SSIM per image: visibility of a perturbation, and the quality of a forgery against its clean twin."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from tsdf_ray.metrics.rows import Array

RANGE = 2.0
"""Of the images, which lie in [-1, 1]."""
SIGMA = 1.5
WINDOW = 11
"""Gaussian window of SSIM (Wang et al. 2004)."""


def psnr(a_BCHW: torch.Tensor, b_BCHW: torch.Tensor) -> torch.Tensor:
    """dB per image, float64 [B]: 10 log10(range^2 / MSE over pixels and channels); infinite for identical images."""
    error_B = (a_BCHW.float() - b_BCHW.float()).square().mean((1, 2, 3), dtype=torch.float64)
    return 10.0 * torch.log10(RANGE**2 / error_B)


def ssim(a_BCHW: torch.Tensor, b_BCHW: torch.Tensor) -> torch.Tensor:
    """Per image, float64 [B], in [-1, 1]; images of 11 x 11 pixels or more.

    Wang et al. 2004: Gaussian window of 11 pixels, sigma 1.5, k1 .01, k2 .03, mean over
    every window that fits into the image, and over channels.
    """
    a, b = a_BCHW.float(), b_BCHW.float()
    # The window is separable and linear: two matrix products per image, faster here than a convolution.
    rows, columns = _windows(a.shape[-2], a.device), _windows(a.shape[-1], a.device).T.contiguous()
    images = torch.stack((a, b, a * a + b * b, a * b))
    narrow = (images.reshape(-1, a.shape[-1]) @ columns).view(-1, a.shape[-2], columns.shape[1])
    mean_a, mean_b, squares, ab = torch.matmul(rows, narrow).view(4, *a.shape[:2], len(rows), columns.shape[1])
    product, mean_squares = mean_a * mean_b, mean_a**2 + mean_b**2
    c1, c2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
    above = (2 * product + c1) * (2 * (ab - product) + c2)
    below = (mean_squares + c1) * ((squares - mean_squares).clamp(min=0) + c2)
    index: torch.Tensor = above / below
    return index.mean((1, 2, 3), dtype=torch.float64)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # whoever asks first: others may need gradients through it
def _windows(size: int, device: torch.device) -> torch.Tensor:
    """Banded matrix [size - 10, size]: row i holds the normalised Gaussian weights of the window that starts at i."""
    offset = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-(offset**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    matrix = torch.zeros(size - WINDOW + 1, size, dtype=torch.float64)
    for i in range(len(matrix)):
        matrix[i, i : i + WINDOW] = weights
    return matrix.float().to(device)


def similarity_measures(
    psnr_B: npt.NDArray[np.float64], ssim_B: npt.NDArray[np.float64], prefix: str = ""
) -> dict[str, Array | tuple[Array, Array]]:
    """Metrics psnr, ssim and psnr_excluded (identical images, whose PSNR is infinite), names with `prefix`."""
    known_B = np.isfinite(psnr_B)
    return {
        f"{prefix}psnr": (np.where(known_B, psnr_B, 0.0), known_B.astype(np.float64)),
        f"{prefix}ssim": ssim_B,
        f"{prefix}psnr_excluded": (~known_B).astype(np.float64),
    }
