"""L2_mask and the interruption success rate (METHOD section 7), and protection.

R is the set of pixels that the forgery of the clean photo changes visibly; L2_mask is the mean squared difference of
the two forgeries over R and the channels. R and reference come from the same generator.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

CHANGED = 0.5
"""A pixel belongs to R when the sum over RGB of |G(x, c) - x| exceeds this, on the [-1, 1] scale."""
DISTORTED = 0.05
"""A forgery counts as interrupted when its L2_mask exceeds this."""


def region(x_PCHW: torch.Tensor, clean_PCHW: torch.Tensor) -> torch.Tensor:
    """R of every pair, bool [P, H, W]: x the photos, `clean` their forgeries G(x, c)."""
    return (clean_PCHW - x_PCHW).abs().sum(1) > CHANGED


def l2_mask(region_PHW: torch.Tensor, clean_PCHW: torch.Tensor, forged_PCHW: torch.Tensor) -> torch.Tensor:
    """float64 [P]: mean over R and channels of (forged - clean)^2; NaN where R is empty."""
    squared_PHW = (forged_PCHW - clean_PCHW).square().sum(1) * region_PHW
    pixels_P = region_PHW.sum((1, 2))
    return squared_PHW.sum((1, 2), dtype=torch.float64) / (clean_PCHW.shape[1] * pixels_P)


def interruption_measures(
    l2_P: npt.NDArray[np.float64], suffix: str = ""
) -> dict[str, npt.NDArray[np.float64] | tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Metrics l2_mask, sr_mask (empty R left out) and l2_mask_excluded (the share left out), names with `suffix`."""
    known_P = np.isfinite(l2_P)
    weight_P = known_P.astype(np.float64)
    value_P = np.where(known_P, l2_P, 0.0)
    return {
        f"l2_mask{suffix}": (value_P, weight_P),
        f"sr_mask{suffix}": ((value_P > DISTORTED).astype(np.float64), weight_P),
        f"l2_mask{suffix}_excluded": 1.0 - weight_P,
    }


def protected(success_P: npt.NDArray[np.bool_], l2_P: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Protection: the judge does not find the edit, or the forgery is distorted (an empty R cannot show that)."""
    return ~success_P | (np.nan_to_num(l2_P, nan=0.0) > DISTORTED)
