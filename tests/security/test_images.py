"""Hostile and broken photos: each costs one message that names the file and the reason, and no memory."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from tsdf_ray.errors import UserError
from tsdf_ray.faces import BadPhoto, decode, load_photo
from tsdf_ray.faces.decode import MAX_BYTES

RNG = np.random.default_rng(1)
NOISE = RNG.integers(0, 256, (48, 40, 3)).astype(np.uint8)


def saved(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    out = io.BytesIO()
    (image or Image.fromarray(NOISE)).save(out, kind, **options)
    return out.getvalue()


def png(width: int, height: int, extra: bytes = b"") -> bytes:
    """A PNG whose header claims a size; its data are a few bytes."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + extra
        + chunk(b"IDAT", zlib.compress(b"\x00" * 100))
        + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(saved("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def bmp_claiming(width: int, height: int) -> bytes:
    data = bytearray(saved("BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def webp_claiming(width: int, height: int) -> bytes:
    """An extended WebP (VP8X) with a canvas of that size and a small picture in it."""
    small = saved("WEBP", lossless=True)
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + b"\x00" * 4 + canvas + small[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (32, 32), (60 * k, 0, 0)) for k in range(3)]
    return saved(kind, frames[0], save_all=True, append_images=frames[1:])


BAD = {
    "zero bytes": (b"", "empty"),
    "HTML renamed .jpg": (b"\n<!DOCTYPE html><html><body>404</body></html>", "HTML"),
    "SVG renamed .png": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "XML"),
    "GIF": (saved("GIF"), "another image format"),
    "TIFF": (saved("TIFF"), "another image format"),
    "text": (b"hello, I am a photo", "not a JPEG, PNG, WebP or BMP"),
    "truncated JPEG": (saved("JPEG")[:1500], "truncated"),
    "truncated PNG": (saved("PNG")[:1500], "truncated"),
    "truncated WebP": (saved("WEBP", quality=90)[:700], "truncated|broken"),
    "truncated BMP": (saved("BMP")[:1500], "truncated"),
    "header alone": (saved("JPEG")[:20], "broken|truncated|not a"),
    "1 x 1": (saved("PNG", Image.new("RGB", (1, 1))), "1 x 1 pixels"),
    "one row": (saved("PNG", Image.new("RGB", (4000, 1))), "4000 x 1 pixels"),
    "15 px": (saved("PNG", Image.new("RGB", (15, 64))), "a side under 16"),
    "animated PNG": (animation("PNG"), "animation"),
    "animated WebP": (animation("WEBP"), "animation"),
    "30,000 x 30,000 PNG": (png(30_000, 30_000), "megapixels"),
    "30,000 x 30,000 JPEG": (jpeg_claiming(30_000, 30_000), "megapixels"),
    "30,000 x 30,000 BMP": (bmp_claiming(30_000, 30_000), "megapixels"),
    "16,000 x 16,000 WebP": (webp_claiming(16_000, 16_000), "megapixels|broken|not a"),
    "8,001 x 8,000 PNG": (png(8_001, 8_000), "8001 x 8000 pixels, more than 64 megapixels"),
    "zlib bomb in a text chunk": (
        png(64, 64, chunk(b"zTXt", b"k\x00\x00" + zlib.compress(b"\x00" * (80 << 20)))),
        "broken",
    ),
    "wrong checksum": (
        png(64, 64).replace(struct.pack(">I", zlib.crc32(b"IEND")), b"\x00\x00\x00\x00"),
        "truncated|broken",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_bytes_are_refused_with_name_reason_and_remedy(case: str) -> None:
    data, reason = BAD[case]
    with pytest.raises(BadPhoto, match=reason) as caught:
        decode(data, "holiday/img 7.jpg")
    assert isinstance(caught.value, UserError)
    message = str(caught.value)
    assert message.startswith("holiday/img 7.jpg: ")
    assert "faces.on_bad" in message
    assert "\n" not in message
    assert message.startswith(caught.value.item)


@pytest.mark.parametrize("case", [case for case in BAD if "," in case])
def test_a_claimed_size_is_refused_before_any_pixel_is_decoded(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append("here"))
    started = time.process_time()
    with pytest.raises(BadPhoto):
        decode(BAD[case][0], "huge")
    assert decoded == []
    assert time.process_time() - started < 1.0


def test_sixty_four_megapixels_pass_the_header_check() -> None:
    """The limit itself is allowed: this one fails only because its pixels are missing."""
    with pytest.raises(BadPhoto, match="truncated or broken"):
        decode(png(8_000, 8_000), "p")


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"]),
    cut=st.floats(0, 1),
    noise=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=12),
)
def test_any_damage_gives_a_photo_or_a_bad_photo(kind: str, cut: float, noise: list[tuple[float, int]]) -> None:
    """Cut anywhere, any bytes overwritten: never another exception, never a wrong type."""
    data = bytearray(saved(kind))
    data = data[: max(1, int(len(data) * max(cut, 0.05)))]
    for where, value in noise:
        data[int(where * len(data))] = value
    try:
        pixels = decode(bytes(data), "fuzz")
    except BadPhoto:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00\x00\x00WEBP", b"BM"]),
)
def test_random_bytes_are_bad_photos(tail: bytes, head: bytes) -> None:
    with pytest.raises(BadPhoto):
        decode(head + tail, "random")


def test_a_pipe_or_device_is_not_opened(tmp_path: Path) -> None:
    """Opening a pipe would wait for ever, reading a device would never end."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "zero.jpg"):
        with pytest.raises(BadPhoto, match="not a regular file"):
            load_photo(tmp_path / name)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(BadPhoto, match="more than 512 MiB"):
        load_photo(path)


def test_a_photo_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "locked.jpg"
    path.symlink_to(path)  # a loop: unreadable for root as well
    with pytest.raises(BadPhoto, match=r"locked\.jpg: cannot be read"):
        load_photo(path)
