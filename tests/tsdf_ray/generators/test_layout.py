"""Norms that keep the memory layout: against the formulas written out, and channels-last against the usual layout."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tsdf_ray.generators import layout

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def written_out(h: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    flat = h.flatten(2)
    mean, deviation = flat.mean(-1, keepdim=True), flat.std(-1, keepdim=True)
    return ((flat - mean) / (deviation + eps) * weight[..., None] + bias[..., None]).view_as(h)


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("rows", [1, 3])
def test_deviation_norm_and_all_its_gradients(kind: torch.memory_format, rows: int) -> None:
    """A large eps, few cells: the unbiased deviation and the place of eps show in value and gradient."""
    torch.manual_seed(0)
    h = torch.randn(3, 5, 4, 2, dtype=torch.float64).contiguous(memory_format=kind).requires_grad_()
    weight, bias = (torch.randn(rows, 5, dtype=torch.float64).requires_grad_() for _ in range(2))
    want = written_out(h, weight, bias, 0.3)
    got = layout.deviation_norm(h, weight, bias, 0.3)
    assert got.is_contiguous(memory_format=kind)
    torch.testing.assert_close(got, want)
    gradient = torch.randn_like(want)
    for a, b in zip(
        torch.autograd.grad(got, (h, weight, bias), gradient),
        torch.autograd.grad(want, (h, weight, bias), gradient),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_deviation_norm_of_a_constant_channel_is_its_bias() -> None:
    h = torch.full((1, 2, 4, 4), 0.5).requires_grad_()
    out = layout.deviation_norm(h, torch.ones(1, 2), torch.tensor([[1.0, -2.0]]), 1e-5)
    torch.testing.assert_close(out[0, :, 0, 0].detach(), torch.tensor([1.0, -2.0]))
    assert bool(torch.autograd.grad(out.square().sum(), h)[0].isfinite().all())


def test_instance_norm_does_not_depend_on_the_layout() -> None:
    torch.manual_seed(0)
    h = torch.randn(3, 6, 8, 8).requires_grad_()
    weight, bias, pull = torch.randn(6), torch.randn(6), torch.randn(3, 6, 8, 8)
    turned = h.contiguous(memory_format=torch.channels_last)
    outs = [layout.instance_norm(x, weight, bias, 1e-5) for x in (h, turned)]
    assert outs[1].is_contiguous(memory_format=torch.channels_last)
    want = F.instance_norm(h, weight=weight, bias=bias)
    slope = torch.autograd.grad(want, h, pull)[0]
    for out in outs:
        torch.testing.assert_close(out, want)
        torch.testing.assert_close(torch.autograd.grad(out, h, pull)[0], slope)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_planes_stand_behind_the_channels(kind: torch.memory_format) -> None:
    h = torch.randn(2, 3, 4, 5).contiguous(memory_format=kind)
    out = layout.with_planes(h, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert out.shape == (2, 5, 4, 5)
    assert out.is_contiguous(memory_format=kind)
    assert torch.equal(out[:, :3], h)
    assert bool((out[1, 4] == 4.0).all())
