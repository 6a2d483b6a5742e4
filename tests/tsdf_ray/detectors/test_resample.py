from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tsdf_ray.detectors.resample import area_resize, crop_boxes


def photos(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_area_means_of_whole_blocks_equal_average_pooling() -> None:
    x = photos(2, 3, 24, 36)
    torch.testing.assert_close(area_resize(x, 6, 12), F.avg_pool2d(x, (4, 3)))


@pytest.mark.parametrize("size", [(13, 31), (24, 36), (7, 5)])
def test_area_means_keep_the_mean_and_use_every_pixel_alike(size: tuple[int, int]) -> None:
    x = photos(1, 3, 24, 36).requires_grad_()
    small = area_resize(x, *size)
    torch.testing.assert_close(small.mean(), x.mean())
    (gradient,) = torch.autograd.grad(small.mean(), x)
    torch.testing.assert_close(gradient, torch.full_like(x, 1 / x.numel()))


def test_the_crop_of_the_whole_photo_is_the_photo_and_outside_is_grey() -> None:
    x = photos(3, 3, 16, 16)
    whole, beside = torch.tensor([0.0, 0, 16, 16]), torch.tensor([20.0, 0, 36, 16])
    photo = torch.tensor([2, 0, 2, 1, 2])  # not in order, some photos more often
    crops = crop_boxes(x, torch.stack([whole, whole, beside, whole, whole]), photo, 16)
    torch.testing.assert_close(crops[[0, 1, 3, 4]], x[[2, 0, 1, 2]])
    assert not crops[2].any()


def test_the_crop_of_a_ramp_is_a_ramp() -> None:
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    crop = crop_boxes(ramp, torch.tensor([[4.0, 4, 12, 12]]), torch.tensor([0]), 5)
    torch.testing.assert_close(crop[0, 0, 0], torch.tensor([3.75, 5.625, 7.5, 9.375, 11.25]))  # edge * 15/16


def test_no_boxes_no_crops() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    assert crop_boxes(photos(2, 3, 16, 16), torch.zeros(0, 4), nothing, 24).shape == (0, 3, 24, 24)
