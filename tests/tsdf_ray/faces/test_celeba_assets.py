"""On real CelebA photos: each image gets its own attributes (parsed by another route), no identity is in two splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tsdf_ray.faces import Counts, FacesConfig, Splits, iter_faces, load_splits

ATTRIBUTES = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male")


@pytest.fixture(scope="module")
def root(assets: Path) -> Path:
    return assets / "celeba-8k"


@pytest.fixture(scope="module")
def splits(root: Path) -> Splits:
    counts = Counts(defender=60, attacker=150, evaluation=90)
    return load_splits(FacesConfig(source="celeba", path=root, size=64, counts=counts), 11)


@pytest.mark.assets
def test_each_image_has_its_own_attributes(root: Path, splits: Splits) -> None:
    """pandas parses the table as fixed fields after a skipped count line; labels are looked up by file name."""
    table = pd.read_csv(root / "list_attr_celeba.txt", sep=r"\s+", skiprows=1)
    for photos in (splits.defender, splits.attacker, splits.evaluation):
        expected = (table.loc[list(photos.ids), list(ATTRIBUTES)].to_numpy() > 0).astype(np.uint8)
        assert np.array_equal(photos.labels_BA, expected)
        assert len(np.unique(photos.labels_BA, axis=0)) == 6  # every hair colour with either gender occurs


@pytest.mark.assets
def test_each_image_is_the_file_its_id_names(root: Path, splits: Splits) -> None:
    """Crop and antialiased bicubic resize by torch; a photo of another person is 20 or more grey levels away."""
    photos = splits.evaluation
    for b, name in enumerate(photos.ids[:40]):
        image = np.asarray(Image.open(root / "img_align_celeba" / name)).astype(np.float32)
        square = torch.from_numpy(image[20:198].transpose(2, 0, 1))[None]
        again = torch.nn.functional.interpolate(square, (64, 64), mode="bicubic", antialias=True)[0].numpy()
        assert np.abs(again.clip(0, 255) - photos.pixels_BCHW[b]).mean() < 1.0


@pytest.mark.assets
def test_no_identity_is_in_two_splits(root: Path, splits: Splits) -> None:
    identity = pd.read_csv(root / "identity_CelebA.txt", sep=r"\s+", header=None, index_col=0)[1]
    partition = pd.read_csv(root / "list_eval_partition.txt", sep=r"\s+", header=None, index_col=0)[1]
    sets = [set(identity.loc[list(s.ids)]) for s in (splits.defender, splits.attacker, splits.evaluation)]
    assert not (sets[0] & sets[1])
    assert not (sets[0] & sets[2])
    assert not (sets[1] & sets[2])
    assert set(partition.loc[list(splits.evaluation.ids)]) == {2}
    assert set(partition.loc[list(splits.defender.ids + splits.attacker.ids)]) == {0}


@pytest.mark.assets
def test_the_stream_agrees_with_the_tables(root: Path) -> None:
    table = pd.read_csv(root / "list_attr_celeba.txt", sep=r"\s+", skiprows=1)
    config = FacesConfig(source="celeba", path=root, size=32, attributes=("Smiling", "Young"))
    for face, _ in zip(iter_faces(config), range(200), strict=False):
        assert {name: int(table.loc[face.id, name] > 0) for name in ("Smiling", "Young")} == dict(face.labels)
