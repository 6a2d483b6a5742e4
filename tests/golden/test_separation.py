"""Eq. 15 on the perturbation the authors published, and on values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tsdf_ray.defenders.separation import reserve_random, reserve_weakest, separation_mask
from tsdf_ray.randomness import torch_rng


@pytest.mark.assets
@pytest.mark.parametrize(("tau", "share", "mean"), [(0.04, 0.1676, 0.9026), (0.03, 0.1199, 0.9287)])
def test_mask_on_the_authors_perturbation(assets: Path, tau: float, share: float, mean: float) -> None:
    w = torch.load(assets / "weights" / "tsdf_authors_stage1_perturbation.pt", weights_only=True, map_location="cpu")
    assert w.shape == (1, 3, 256, 256)
    mask = separation_mask(w, tau, beta=5.0)
    kept = mask > 0
    assert float(kept.float().mean()) == pytest.approx(share, abs=5e-5)
    assert float(mask[kept].mean()) == pytest.approx(mean, abs=5e-5)


def test_mask_by_hand() -> None:
    # exp(-5 * 0) = 1; exp(-5 * 0.02) = exp(-0.1) = 0.904837; 0.04 is not below tau; 0.05 is above.
    mask = separation_mask(torch.tensor([0.0, 0.02, -0.02, 0.04, -0.05]), tau=0.04, beta=5.0)
    torch.testing.assert_close(mask, torch.tensor([1.0, 0.904837, 0.904837, 0.0, 0.0]))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_a_random_share_has_exactly_its_entries(share: float) -> None:
    reserved = reserve_random(share, (1, 3, 8, 8), torch_rng(0, "share"))
    assert int(reserved.sum()) == round(share * 192)


def test_the_weakest_share_by_hand() -> None:
    # |w| = 3, 1, 2, 0: the smaller half are positions 1 and 3.
    reserved = reserve_weakest(0.5, torch.tensor([[-0.3, 0.1], [0.2, 0.0]]))
    assert reserved.tolist() == [[False, True], [False, True]]
