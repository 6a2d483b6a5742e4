"""Models and photos small enough for tests: milliseconds per pass."""

from __future__ import annotations

import numpy as np
import torch

from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.editor import Editor, EditorConfig
from tsdf_ray.generators.fresh import fresh_family

TINY_SIZE = 32
"""Side of the photos `tiny_editor` and `tiny_faces` are made for."""


def tiny_editor(seed: int) -> Editor:
    """An untrained light editor of few channels, whose edits are clearly visible; equal for equal seeds."""
    config = EditorConfig(widths=(8, 8), blocks=1, discriminator_widths=(8, 8, 8), classifier_width=4)
    editor = fresh_family(Editor, config, seed, "tiny")
    assert isinstance(editor, Editor)
    with torch.no_grad():
        # A fresh editor is close to the identity; tests need something to break.
        editor.generator.head.weight.mul_(10.0)
    return editor


def tiny_faces(count: int, seed: int = 0, size: int = TINY_SIZE) -> FaceSet:
    """Smooth random pictures (not faces) with the four labels of the light editor, one hair colour each."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.integers(0, 256, (count, 3, 4, 4)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    labels = np.zeros((count, 4), np.uint8)
    labels[np.arange(count), rng.integers(0, 3, count)] = 1
    labels[:, 3] = rng.integers(0, 2, count)
    attributes = EditorConfig().attributes
    ids = tuple(f"tiny-{seed}-{i:04d}" for i in range(count))
    return FaceSet(smooth.round().to(torch.uint8).numpy(), labels, attributes, ids)
