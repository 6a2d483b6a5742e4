"""One photo from bytes to pixels, bounded: a bad file costs a message, never the memory or the run.

What is converted: CMYK, 16-bit (its high byte), grey and palette to RGB; transparency is laid over white; the EXIF
orientation is applied. Colour profiles are ignored. What is refused: anything but JPEG, PNG, WebP and BMP, more than
64 megapixels (by the header, before any pixel is decoded), a side under 16 pixels, animations, and files that are
empty, truncated or broken. A phone's multi-picture JPEG counts as its main picture.
"""

from __future__ import annotations

import io
import stat
import struct
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from tsdf_ray.errors import UserError

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 64_000_000
MIN_SIDE = 16
MAX_BYTES = 512 << 20
_ORIENTATION = 0x0112
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadPhoto(UserError):
    """One photo, or its row in a label file, that cannot be used: `item` is 'name: reason', as listed when skipped."""

    def __init__(self, name: str, reason: str, remedy: str = "replace or remove it, or set faces.on_bad: skip") -> None:
        self.item = f"{name}: {reason}"
        super().__init__(f"{self.item}; {remedy}")


def read_bytes(path: Path) -> bytes:
    """The bytes of a photo file. Raises BadPhoto: missing, not a regular file, unreadable, more than 512 MiB."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise BadPhoto(str(path), "not a regular file")
        if found.st_size > MAX_BYTES:
            raise BadPhoto(str(path), f"{found.st_size >> 20} MiB, more than {MAX_BYTES >> 20} MiB")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BadPhoto(str(path), "file is missing") from error
    except OSError as error:
        raise BadPhoto(str(path), f"cannot be read ({error.strerror})") from error


def load_photo(path: Path) -> Pixels:
    """A photo file as uint8 [H, W, 3] RGB. Raises BadPhoto."""
    return decode(read_bytes(path), str(path))


def decode(data: bytes, name: str) -> Pixels:
    """Bytes of one photo -> uint8 [H, W, 3] RGB, upright. Raises BadPhoto naming `name` and the reason."""
    if not data:
        raise BadPhoto(name, "empty (zero bytes)")
    with _open(data, name) as photo:
        _check_header(photo, name)
        try:
            photo.load()
            rgb = _to_rgb(photo)
            return np.array(_upright(rgb, photo), dtype=np.uint8)
        except Exception as error:  # Pillow's decoders raise almost anything on broken data
            raise BadPhoto(name, f"truncated or broken ({error})") from error


def to_square(image_HWC: Pixels, size: int, crop: int | None = None, name: str = "photo") -> Pixels:
    """Centre crop to a square, then resize (bicubic, antialiased): uint8 [H, W, 3] -> uint8 [3, size, size].

    `crop` is the side of the square in pixels; by default the largest that fits (CelebA's 178 x 218: 178). A photo that
    has the wanted size already keeps its pixels exactly. Raises BadPhoto when the photo is smaller than `crop`.
    """
    height, width = image_HWC.shape[:2]
    side = min(height, width) if crop is None else crop
    if side > min(height, width):
        raise BadPhoto(
            name, f"{width} x {height} pixels, smaller than the crop of {side}", "lower faces.crop or skip it"
        )
    top, left = (height - side) // 2, (width - side) // 2
    square = image_HWC[top : top + side, left : left + side]
    if side != size:
        resized = Image.fromarray(np.ascontiguousarray(square)).resize((size, size), Image.Resampling.BICUBIC)
        square = np.asarray(resized, dtype=np.uint8)
    return np.ascontiguousarray(square.transpose(2, 0, 1))


def _open(data: bytes, name: str) -> Image.Image:
    """Read the header only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadPhoto(name, f"more than {MAX_PIXELS // 10**6} megapixels by its header") from error
    except UnidentifiedImageError as error:
        raise BadPhoto(name, f"not a JPEG, PNG, WebP or BMP photo{_what_it_is(data)}") from error
    except Exception as error:  # Pillow's parsers raise almost anything on broken headers
        raise BadPhoto(name, f"broken header ({error})") from error


def _check_header(photo: Image.Image, name: str) -> None:
    width, height = photo.size
    if width * height > MAX_PIXELS:
        raise BadPhoto(name, f"{width} x {height} pixels, more than {MAX_PIXELS // 10**6} megapixels")
    if min(width, height) < MIN_SIDE:
        raise BadPhoto(name, f"{width} x {height} pixels, a side under {MIN_SIDE}")
    # MPO is how phones store a JPEG with a depth or gain map behind it: not an animation.
    if photo.format != "MPO" and getattr(photo, "n_frames", 1) > 1:
        raise BadPhoto(name, "an animation", "save one frame as JPEG or PNG, or set faces.on_bad: skip")


def _to_rgb(photo: Image.Image) -> Image.Image:
    if photo.mode.startswith("I"):
        # 16-bit grey: Pillow's conversion would clip it to white. The high byte, as Pillow takes of 16-bit colour.
        return Image.fromarray((np.asarray(photo).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if "transparency" in photo.info or photo.mode in {"RGBA", "LA", "PA", "La", "RGBa"}:
        seen = photo.convert("RGBA")
        white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, seen).convert("RGB")
    return photo.convert("RGB")


def _upright(rgb: Image.Image, photo: Image.Image) -> Image.Image:
    try:
        orientation = photo.getexif().get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, OSError, struct.error):
        return rgb  # garbled EXIF data says nothing about the picture, which is whole
    turn = _TURN.get(orientation) if isinstance(orientation, int) else None
    return rgb if turn is None else rgb.transpose(turn)


def _what_it_is(data: bytes) -> str:
    """A hint for files that carry a photo's name and are something else."""
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return " (it is an HTML or XML page: the download failed)"
    if head.startswith((b"gif8", b"ii*\x00", b"mm\x00*")) or head[4:8] == b"ftyp":
        return " (another image format: convert it)"
    return ""
