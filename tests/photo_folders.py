"""A folder of photos with labels, as users have them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tsdf_ray.faces import FaceSet


def write_photos(folder: Path, photos: FaceSet) -> Path:
    """Make `folder`: one PNG per photo, and labels.csv."""
    folder.mkdir()
    rows = [",".join(["id", *photos.attributes])]
    for pixels, labels, name in zip(photos.pixels_BCHW, photos.labels_BA, photos.ids, strict=True):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{name}.png")
        rows.append(",".join([f"{name}.png", *map(str, labels)]))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder
