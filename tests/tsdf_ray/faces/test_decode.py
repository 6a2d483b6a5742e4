"""One photo from bytes to pixels: conversions, orientation, crop and resize. Hostile bytes: tests/security."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tsdf_ray.faces import BadPhoto, decode, load_photo, photo_files, to_square

RNG = np.random.default_rng(0)
PHOTO = np.kron(RNG.integers(30, 225, (6, 5, 3)), np.ones((8, 8, 1))).astype(np.uint8)  # 48 high, 40 wide, 8 px tiles


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png16(samples_HWC: npt.NDArray[np.uint16]) -> bytes:
    """A 16-bit PNG, grey or colour, by hand: Pillow writes no 16-bit colour."""
    height, width, channels = samples_HWC.shape
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in samples_HWC)
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(PHOTO), kind), "p"), PHOTO)


def test_webp_lossless_keeps_every_pixel() -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(PHOTO), "WEBP", lossless=True), "p"), PHOTO)


def test_jpeg_is_near() -> None:
    out = decode(encoded(Image.fromarray(PHOTO), "JPEG", quality=95, subsampling=0), "p").astype(int)
    assert np.abs(out - PHOTO).mean() < 3


def test_the_result_can_be_written_to() -> None:
    out = decode(encoded(Image.fromarray(PHOTO)), "p")
    out[0, 0] = 7
    assert out.flags.c_contiguous


def test_cmyk_becomes_rgb() -> None:
    cmyk = Image.new("CMYK", (32, 32), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    out = decode(encoded(cmyk, "JPEG", quality=100, subsampling=0), "p")
    assert out.shape == (32, 32, 3)
    assert np.abs(out.reshape(-1, 3).mean(0) - (255, 0, 0)).max() < 4


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32, 1).astype(np.uint16)
    out = decode(png16(ramp), "p")
    assert np.array_equal(out, np.repeat((ramp >> 8).astype(np.uint8), 3, axis=2))


def test_sixteen_bit_colour_keeps_the_high_byte() -> None:
    samples = RNG.integers(0, 65536, (20, 24, 3)).astype(np.uint16)
    assert np.array_equal(decode(png16(samples), "p"), (samples >> 8).astype(np.uint8))


def test_grey_and_bilevel_become_three_equal_channels() -> None:
    grey = Image.fromarray(PHOTO[..., 0])
    assert np.array_equal(decode(encoded(grey), "p"), np.repeat(PHOTO[..., :1], 3, axis=2))
    assert set(np.unique(decode(encoded(grey.convert("1")), "p"))) == {0, 255}


def test_a_palette_is_resolved() -> None:
    flat = Image.new("P", (20, 20), 1)
    flat.putpalette([0, 0, 0, 10, 200, 30])
    assert (decode(encoded(flat), "p") == (10, 200, 30)).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(mode: str) -> None:
    pixels = np.zeros((20, 20, len(mode)), dtype=np.uint8)
    pixels[:, 10:, -1] = 255  # black, left half invisible
    out = decode(encoded(Image.fromarray(pixels, mode)), "p")
    assert (out[:, :10] == 255).all()
    assert (out[:, 10:] == 0).all()


def test_half_transparent_is_half_white() -> None:
    assert np.abs(decode(encoded(Image.new("RGBA", (16, 16), (0, 0, 0, 128))), "p").astype(int) - 127).max() <= 1


def test_a_transparent_palette_entry_is_white() -> None:
    flat = Image.new("P", (20, 20), 1)
    flat.putpalette([0, 0, 0, 10, 200, 30])
    assert (decode(encoded(flat, transparency=1), "p") == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    """The stored picture is turned by the inverse of each orientation (TIFF 6.0, tag 274), so all come out upright."""
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](PHOTO)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    assert np.array_equal(decode(encoded(image, "PNG", exif=exif), "p"), PHOTO)
    turned = decode(encoded(image, "JPEG", exif=exif, quality=95, subsampling=0), "p")
    assert turned.shape == PHOTO.shape
    assert np.abs(turned.astype(int) - PHOTO).mean() < 3


@pytest.mark.parametrize("exif", [b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"no exif at all"])
def test_garbled_exif_costs_nothing(exif: bytes) -> None:
    out = decode(encoded(Image.fromarray(PHOTO), "JPEG", exif=exif), "p")
    assert out.shape == PHOTO.shape


def test_a_phones_multi_picture_jpeg_is_its_main_picture() -> None:
    main, second = Image.fromarray(PHOTO), Image.new("RGB", (20, 20))
    data = encoded(main, "MPO", save_all=True, append_images=[second], quality=95)
    assert decode(data, "p").shape == PHOTO.shape


def test_square_is_the_centre_crop() -> None:
    """CelebA: 178 x 218, the largest square drops 20 rows at the top and 20 at the bottom."""
    photo = RNG.integers(0, 256, (218, 178, 3)).astype(np.uint8)
    assert np.array_equal(to_square(photo, 178), photo[20:198].transpose(2, 0, 1))
    assert np.array_equal(to_square(photo, 170, crop=170), photo[24:194, 4:174].transpose(2, 0, 1))
    assert np.array_equal(
        to_square(photo.transpose(1, 0, 2), 178), photo.transpose(1, 0, 2)[:, 20:198].transpose(2, 0, 1)
    )


def test_resize_is_antialiased() -> None:
    """Stripes of period 3 average to their mean at a quarter of the size; without the filter they would alias."""
    stripes = np.zeros((128, 128, 3), dtype=np.uint8)
    stripes[:, ::3] = 255
    assert np.abs(to_square(stripes, 32).astype(int) - 85)[:, 4:-4, 4:-4].max() <= 12


def test_a_crop_larger_than_the_photo_is_a_bad_photo() -> None:
    with pytest.raises(BadPhoto, match=r"p7.*40 x 48.*crop of 100"):
        to_square(PHOTO, 64, crop=100, name="p7")


@settings(max_examples=60, deadline=None)
@given(st.integers(16, 90), st.integers(16, 90), st.integers(32, 80), st.integers(0, 255))
def test_any_shape_becomes_a_square_and_a_flat_photo_stays_flat(height: int, width: int, size: int, value: int) -> None:
    out = to_square(np.full((height, width, 3), value, dtype=np.uint8), size)
    assert out.shape == (3, size, size)
    assert (out == value).all()


def test_load_photo_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(PHOTO)))
    assert np.array_equal(load_photo(path), PHOTO)
    with pytest.raises(BadPhoto, match=r"missing\.jpg: file is missing"):
        load_photo(tmp_path / "missing.jpg")


def test_photo_files_are_found_by_suffix_and_sorted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ["b.JPG", "a.png", "sub/c.webp", "notes.txt", ".x.jpg", ".hidden/d.jpg", "e.gif"]:
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in photo_files(tmp_path)] == [
        "a.png",
        "b.JPG",
        "e.gif",
        "sub/c.webp",
    ]
