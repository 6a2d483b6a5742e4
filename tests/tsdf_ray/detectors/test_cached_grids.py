"""Grids and weights that are kept for the whole process serve gradients too, whoever asked for them first."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tsdf_ray.detectors import priors, resample
from tsdf_ray.metrics import visibility

KEPT: list[tuple[object, Callable[[], torch.Tensor]]] = [
    (priors.square_priors, lambda: priors.square_priors(((4, 4),), (8,), ((16.0,),))),
    (resample._area_weights, lambda: resample._area_weights(16, 8)),
    (visibility._windows, lambda: visibility._windows(16, torch.device("cpu"))),
]


@pytest.mark.parametrize(("cached", "make"), KEPT)
def test_first_asked_for_without_gradients(cached: object, make: Callable[[], torch.Tensor]) -> None:
    cached.cache_clear()  # type: ignore[attr-defined]
    with torch.inference_mode():
        make()
    kept = make()
    factor = torch.ones_like(kept, requires_grad=True)
    (gradient,) = torch.autograd.grad((factor * kept).sum(), factor)
    assert torch.equal(gradient, kept)
