"""Channels: identity, sizes, gradients, the real codec against its model, configs."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from pydantic import TypeAdapter, ValidationError
from scipy import ndimage, optimize

from tsdf_ray.channels import (
    CHANNELS,
    BitDepthChannel,
    BlurChannel,
    ChannelConfig,
    JpegChannel,
    MedianChannel,
    NoChannel,
    ResizeChannel,
    TvChannel,
    eight_bit,
    make_channel,
    publish,
)
from tsdf_ray.faces.faceset import FaceSet, to_images, to_pixels

EVERY = [
    NoChannel(),
    JpegChannel(quality=75),
    ResizeChannel(size=40),
    ResizeChannel(size=90),
    BlurChannel(sigma=1.0),
    MedianChannel(radius=1),
    BitDepthChannel(bits=4),
    TvChannel(weight=0.1),
]
LOSSY = EVERY[1:]
SMOOTH = [config for config in EVERY if config.kind != "median"]
"""A median passes the gradient to one pixel of its window only."""


def photos(n: int = 3, size: int = 64, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth coloured blobs with a little grain: compressible like photos, different in every channel."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(20, 235, (n, 3, 6, 6))
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), (size, size), mode="bicubic")
    grain = rng.normal(0, 4, (n, 3, size, size))
    return (smooth.numpy() + grain).clip(0, 255).round().astype(np.uint8)


def face_set(pixels: npt.NDArray[np.uint8]) -> FaceSet:
    labels = np.eye(len(pixels), 2, dtype=np.uint8)
    return FaceSet(pixels, labels, ("Black_Hair", "Male"), tuple(f"p{i}" for i in range(len(pixels))))


def test_none_is_identity_and_a_copy() -> None:
    before = photos()
    after = make_channel(NoChannel()).publish(before)
    assert np.array_equal(before, after)
    assert not np.shares_memory(before, after)


@pytest.mark.parametrize("config", EVERY, ids=str)
@pytest.mark.parametrize("sides", [(64, 64), (50, 71)])
def test_shape_type_and_range_are_kept(config: ChannelConfig, sides: tuple[int, int]) -> None:
    pixels = photos(2, 80)[:, :, : sides[0], : sides[1]]
    pixels.setflags(write=False)  # arrays out of an object store are read-only
    channel = make_channel(config)
    published = channel.publish(pixels)
    assert published.shape == pixels.shape
    assert published.dtype == np.uint8
    applied = channel.apply(to_images(torch.from_numpy(pixels.copy())))
    assert applied.shape == pixels.shape
    assert applied.dtype == torch.float32
    assert float(applied.abs().max()) <= 1.0


@pytest.mark.parametrize("config", SMOOTH, ids=str)
def test_a_gradient_reaches_every_pixel_and_is_finite(config: ChannelConfig) -> None:
    x = to_images(torch.from_numpy(photos())).requires_grad_()
    make_channel(config).apply(x).square().sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())
    assert float((x.grad != 0).float().mean()) > 0.99


@pytest.mark.parametrize("config", LOSSY, ids=str)
def test_the_gradient_leads_through_the_channel(config: ChannelConfig) -> None:
    """Following it, the photo *after* the channel approaches a target: what an EOT defence relies on."""
    channel = make_channel(config)
    x = to_images(torch.from_numpy(photos(1)))
    target = channel.apply(to_images(torch.from_numpy(photos(1, seed=5))))
    start = float((channel.apply(x) - target).square().mean())
    x.requires_grad_()
    for _ in range(20):
        (grad,) = torch.autograd.grad((channel.apply(x) - target).square().sum(), x)
        x = (x - 0.02 * grad.sign()).clamp(-1, 1).detach().requires_grad_()
    assert float((channel.apply(x.detach()) - target).square().mean()) < 0.5 * start


def test_the_gradient_of_blur_agrees_with_finite_differences() -> None:
    blur = make_channel(BlurChannel(sigma=0.8))
    x = to_images(torch.from_numpy(photos(1, 16))).double().requires_grad_()
    assert torch.autograd.gradcheck(blur.apply, (x,), atol=1e-4)


@pytest.mark.parametrize("quality", [30, 60, 85, 95])
def test_real_jpeg_and_its_differentiable_model_agree(quality: int) -> None:
    """Mean difference well under what the codec itself does to the photo, and under 2 grey levels."""
    pixels = photos(4, 128)
    channel = make_channel(JpegChannel(quality=quality))
    real = channel.publish(pixels).astype(np.int16)
    model = to_pixels(channel.apply(to_images(torch.from_numpy(pixels)))).numpy().astype(np.int16)
    difference, effect = np.abs(real - model).mean(), np.abs(real - pixels).mean()
    assert difference < 2.0
    assert difference < 0.75 * effect


def test_published_jpeg_is_what_libjpeg_writes_with_half_the_colour() -> None:
    pixels = photos(1, 64)
    out = make_channel(JpegChannel(quality=70)).publish(pixels)
    file = io.BytesIO()
    Image.fromarray(pixels[0].transpose(1, 2, 0)).save(file, "JPEG", quality=70, subsampling=2)
    assert np.array_equal(out[0], np.asarray(Image.open(file)).transpose(2, 0, 1))


def test_lower_quality_costs_more() -> None:
    pixels = photos(4, 64)
    errors = [
        np.abs(make_channel(JpegChannel(quality=q)).publish(pixels).astype(int) - pixels).mean()
        for q in (95, 75, 40, 10)
    ]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1] / 2


def test_resize_removes_what_the_stored_size_cannot_hold() -> None:
    """Stripes of period 3 average to their mean at a quarter of the size; without the filter they alias to +-100."""
    stripes = np.broadcast_to(np.where(np.arange(64) % 3 == 0, 255, 0).astype(np.uint8), (1, 3, 64, 64)).copy()
    out = make_channel(ResizeChannel(size=16)).publish(stripes)
    assert np.abs(out.astype(int)[:, :, 8:-8, 8:-8] - 85).max() <= 12


def test_resize_to_the_own_size_changes_nothing() -> None:
    pixels = photos(2, 64)
    assert np.array_equal(make_channel(ResizeChannel(size=64)).publish(pixels), pixels)


def test_blur_agrees_with_pillow() -> None:
    """Pillow's Gaussian (box approximations) is an independent implementation of the same filter."""
    pixels = photos(1, 64)
    ours = make_channel(BlurChannel(sigma=1.5)).publish(pixels)[0].transpose(1, 2, 0).astype(int)
    theirs = np.asarray(Image.fromarray(pixels[0].transpose(1, 2, 0)).filter(ImageFilter.GaussianBlur(1.5))).astype(int)
    assert np.abs(ours - theirs)[8:-8, 8:-8].mean() < 0.6


def test_the_median_of_a_small_image_by_hand() -> None:
    """Edges are reflected without repeating them: the corner's window is 9 8 9 / 2 1 2 / 9 8 9, so its median is 8."""
    image = np.array([[1, 2, 3], [8, 9, 4], [7, 6, 5]], np.uint8)
    pixels = np.broadcast_to(image, (1, 3, 3, 3)).copy()
    out = make_channel(MedianChannel(radius=1)).publish(pixels)
    assert out[0, 0, 0, 0] == 8
    assert out[0, 1, 1, 1] == 5


@pytest.mark.parametrize("radius", [1, 2])
def test_median_agrees_with_scipy(radius: int) -> None:
    pixels = photos(2, 32)
    wanted = ndimage.median_filter(pixels, (1, 1, 2 * radius + 1, 2 * radius + 1), mode="mirror")
    assert np.array_equal(make_channel(MedianChannel(radius=radius)).publish(pixels), wanted)


@pytest.mark.parametrize(
    ("bits", "wanted"), [(1, [0, 0, 255, 255]), (2, [0, 85, 170, 255]), (8, [0, 100, 140, 255])], ids=str
)
def test_bit_depth_by_hand(bits: int, wanted: list[int]) -> None:
    """Two bits: levels 0, 85, 170, 255; 100 is nearest to 85, 140 to 170."""
    pixels = np.broadcast_to(np.array([0, 100, 140, 255], np.uint8), (1, 3, 4, 4)).copy()
    out = make_channel(BitDepthChannel(bits=bits)).publish(pixels)
    assert out[0, 0, 0].tolist() == wanted


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.integers(0, 2**31 - 1))
def test_bit_depth_moves_no_value_by_more_than_half_a_level_and_is_idempotent(bits: int, seed: int) -> None:
    pixels = photos(1, 16, seed)
    channel = make_channel(BitDepthChannel(bits=bits))
    once = channel.publish(pixels)
    assert len(np.unique(once)) <= 2**bits
    assert np.abs(once.astype(int) - pixels).max() <= 127.5 / (2**bits - 1) + 0.5
    assert np.array_equal(channel.publish(once), once)


def test_tv_of_two_flat_halves_by_hand() -> None:
    """A step of height h between halves n wide shrinks by weight / n on each side, and is flat beyond weight n h / 2.

    Here n = 2, halves at -0.5 and 0.5: weight 0.2 gives -0.4 and 0.4; weight 2 gives 0.
    """
    x = torch.full((1, 3, 6, 4), -0.5, dtype=torch.float64)
    x[..., 2:] = 0.5
    for weight, level in ((0.2, 0.4), (2.0, 0.0)):
        out = make_channel(TvChannel(weight=weight, steps=500)).apply(x)
        torch.testing.assert_close(out[..., 2:], torch.full_like(out[..., 2:], level), atol=1e-3, rtol=0)
        torch.testing.assert_close(out[..., :2], torch.full_like(out[..., :2], -level), atol=1e-3, rtol=0)


def _tv_energy(u: npt.NDArray[np.float64], x: npt.NDArray[np.float64], weight: float) -> float:
    """Written pixel by pixel, from the definition."""
    rows, columns = x.shape
    total = 0.0
    for i in range(rows):
        for j in range(columns):
            down = u[i + 1, j] - u[i, j] if i + 1 < rows else 0.0
            right = u[i, j + 1] - u[i, j] if j + 1 < columns else 0.0
            total += (u[i, j] - x[i, j]) ** 2 / 2 + weight * np.sqrt(down**2 + right**2 + 1e-12)
    return float(total)


def test_tv_agrees_with_a_general_minimiser() -> None:
    x = np.random.default_rng(3).uniform(-0.9, 0.9, (4, 5))
    found = optimize.minimize(lambda u: _tv_energy(u.reshape(4, 5), x, 0.2), x.ravel(), method="SLSQP", tol=1e-12)
    channel = make_channel(TvChannel(weight=0.2, steps=500))
    ours = channel.apply(torch.from_numpy(x).expand(1, 3, 4, 5))[0, 0].numpy()
    assert _tv_energy(ours, x, 0.2) <= found.fun + 1e-5
    assert np.abs(ours - found.x.reshape(4, 5)).max() < 0.02


def test_tv_keeps_the_mean_and_more_weight_leaves_less_variation() -> None:
    x = to_images(torch.from_numpy(photos(2, 32)))
    outs = [x, *(make_channel(TvChannel(weight=weight)).apply(x) for weight in (0.05, 0.2, 0.8))]
    for out in outs:
        torch.testing.assert_close(out.mean((2, 3)), x.mean((2, 3)), atol=1e-4, rtol=0)
    variation = [float(out.diff(dim=-1).abs().mean() + out.diff(dim=-2).abs().mean()) for out in outs]
    assert variation == sorted(variation, reverse=True)
    assert variation[-1] < variation[0] / 2


@pytest.mark.parametrize("config", EVERY, ids=str)
def test_a_photo_does_not_depend_on_its_neighbours(config: ChannelConfig) -> None:
    """More photos than one chunk; the same bits alone as in the batch."""
    pixels = photos(70, 32)
    channel = make_channel(config)
    together = channel.publish(pixels)
    assert np.array_equal(channel.publish(pixels[66:67]), together[66:67])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=48))
def test_eight_bit_keeps_the_grid_exactly(values: list[int]) -> None:
    pixels = torch.tensor(values, dtype=torch.uint8)
    assert torch.equal(to_pixels(eight_bit(to_images(pixels))), pixels)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1.5, 1.5, width=32), min_size=1, max_size=48))
def test_eight_bit_rounds_to_the_nearest_step_and_passes_the_gradient(values: list[float]) -> None:
    x = torch.tensor(values, requires_grad=True)
    y = eight_bit(x)
    inside = x.detach().abs() < 1
    assert float((y - x.clamp(-1, 1)).detach().abs().max()) <= 1 / 255 + 1e-6
    y.sum().backward()
    assert x.grad is not None
    assert bool((x.grad[inside] == 1).all())
    assert bool((x.grad[x.detach().abs() > 1] == 0).all())


def test_publish_keeps_people_and_labels() -> None:
    before = face_set(photos())
    after = publish(before, JpegChannel(quality=50))
    assert after.ids == before.ids
    assert after.attributes == before.attributes
    assert np.array_equal(after.labels_BA, before.labels_BA)
    assert not np.array_equal(after.pixels_BCHW, before.pixels_BCHW)


@pytest.mark.parametrize("config", EVERY, ids=str)
def test_a_set_without_photos_passes(config: ChannelConfig) -> None:
    assert make_channel(config).publish(photos(1)[:0]).shape == (0, 3, 64, 64)


def test_every_kind_of_the_union_is_registered() -> None:
    adapter: TypeAdapter[ChannelConfig] = TypeAdapter(ChannelConfig)
    for kind in CHANNELS:
        data = {"kind": kind, **({"size": 64} if kind == "resize" else {})}
        config = adapter.validate_python(data)
        assert make_channel(config).name == kind == config.kind
        assert adapter.validate_json(adapter.dump_json(config)) == config


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "jpeg", "quality": 0},
        {"kind": "jpeg", "quality": 101},
        {"kind": "jpeg", "quallity": 80},
        {"kind": "resize"},
        {"kind": "resize", "size": 8},
        {"kind": "blur", "sigma": 0},
        {"kind": "blur", "sigma": float("nan")},
        {"kind": "none", "quality": 3},
        {"kind": "median", "radius": 0},
        {"kind": "bit_depth", "bits": 0},
        {"kind": "bit_depth", "bits": 9},
        {"kind": "tv", "weight": 0},
        {"kind": "sharpen"},
        {},
    ],
    ids=str,
)
def test_bad_configs_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ChannelConfig).validate_python(bad)
