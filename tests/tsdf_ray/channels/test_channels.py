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

from tsdf_ray.channels import (
    CHANNELS,
    BlurChannel,
    ChannelConfig,
    JpegChannel,
    NoChannel,
    ResizeChannel,
    eight_bit,
    make_channel,
    publish,
)
from tsdf_ray.faces.faceset import FaceSet, to_images, to_pixels

EVERY = [NoChannel(), JpegChannel(quality=75), ResizeChannel(size=40), ResizeChannel(size=90), BlurChannel(sigma=1.0)]
LOSSY = EVERY[1:]


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


@pytest.mark.parametrize("config", EVERY, ids=str)
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
        {"kind": "sharpen"},
        {},
    ],
    ids=str,
)
def test_bad_configs_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ChannelConfig).validate_python(bad)
