"""Pretraining: what it leaves on disk, exact resume, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tsdf_ray.digest import array_digest
from tsdf_ray.errors import Stopped, UserError
from tsdf_ray.generators import Editor, PretrainConfig, Progress, fresh_family, load_family, pretrain
from tsdf_ray.generators.classifier import train_classifier
from tsdf_ray.generators.editor import EditorConfig
from tsdf_ray.testing.tiny import TINY_SIZE, tiny_faces

SETTINGS = {
    "widths": (8, 8),
    "blocks": 1,
    "discriminator_widths": (8, 8),
    "classifier_width": 4,
}
CONFIG = PretrainConfig.model_validate(
    {
        "settings": SETTINGS,
        "train": {"steps": 6, "batch": 4},
        "small_steps": 2,
        "classifier_steps": 3,
        "sample_every": 3,
        "checkpoint_every": 3,
    }
)


def test_what_a_training_leaves(tmp_path: Path) -> None:
    told: list[Progress] = []
    path = pretrain(CONFIG, tiny_faces(8), tmp_path, told.append, samples=tiny_faces(3, seed=1))
    family = load_family(path)
    assert isinstance(family, Editor)
    assert family.config == EditorConfig.model_validate(SETTINGS)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "step-0000003.safetensors",
        "step-0000006.safetensors",
    ]
    last = load_family(tmp_path / "checkpoints" / "step-0000006.safetensors")
    assert array_digest(last.tensors()) == array_digest(family.tensors())
    with Image.open(tmp_path / "samples" / "step-0000006.png") as grid:
        assert grid.size == (6 * TINY_SIZE, 3 * TINY_SIZE)  # photo, own labels, four edits; three photos
        column = np.asarray(grid)[:, :TINY_SIZE].transpose(2, 0, 1)
    np.testing.assert_array_equal(column, np.concatenate(list(tiny_faces(3, seed=1).pixels_BCHW), 1))
    assert [(p.phase, p.step, p.steps) for p in told] == [("classifier", i, 3) for i in (1, 2, 3)] + [
        ("generator", i, 6) for i in range(1, 7)
    ]
    assert told[-1].seconds_left == 0
    assert told[-2].seconds_left > 0


@pytest.mark.parametrize("when", [1, 3, 5])
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path, when: int) -> None:
    faces = tiny_faces(8)
    whole = pretrain(CONFIG, faces, tmp_path / "whole")

    def stop(progress: Progress) -> None:
        if progress.phase == "generator" and progress.step == when:
            raise Stopped

    with pytest.raises(Stopped):
        pretrain(CONFIG, faces, tmp_path / "broken", stop)
    steps: list[int] = []
    path = pretrain(CONFIG, faces, tmp_path / "broken", lambda p: steps.append(p.step), resume=True)
    assert steps == list(range(when + 1, 7))
    assert array_digest(load_family(path).tensors()) == array_digest(load_family(whole).tensors())


def test_refusals(tmp_path: Path) -> None:
    faces = tiny_faces(8)
    with pytest.raises(UserError, match="no training to resume"):
        pretrain(CONFIG, faces, tmp_path / "new", resume=True)
    pretrain(CONFIG, faces, tmp_path / "done")
    with pytest.raises(UserError, match="holds a training already"):
        pretrain(CONFIG, faces, tmp_path / "done")
    with pytest.raises(UserError, match="other settings"):
        pretrain(CONFIG.model_copy(update={"seed": 1}), faces, tmp_path / "done", resume=True)
    with pytest.raises(UserError, match="other photos"):
        pretrain(CONFIG, tiny_faces(8, seed=1), tmp_path / "done", resume=True)
    with pytest.raises(UserError, match="unknown name 'cyclegan'"):
        pretrain(CONFIG.model_copy(update={"family": "cyclegan"}), faces, tmp_path / "x")
    with pytest.raises(UserError, match=r"settings\.widht"):
        pretrain(CONFIG.model_copy(update={"settings": {"widht": 3}}), faces, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_classifier_learns_labels_that_are_in_the_picture() -> None:
    faces = tiny_faces(64)
    pixels = faces.pixels_BCHW // 4
    for i, label in enumerate(faces.labels_BA):
        pixels[i, int(label[:3].argmax())] += 100  # the hair colour tints the picture
        pixels[i, :, :, : pixels.shape[-1] // 2] += 80 * label[3]  # one half is brighter
    faces = faces.with_pixels(pixels)
    family = fresh_family(Editor, EditorConfig(widths=(8, 8), blocks=1, classifier_width=8), 0)
    module = family.parts["classifier"]
    train_classifier(module, faces, 100, 0, learning_rate=1e-2)
    with torch.no_grad():
        logits = module(faces.images())
    right = (logits[:, :3].argmax(1) == faces.labels()[:, :3].argmax(1)) & (
        (logits[:, 3] > 0) == (faces.labels()[:, 3] > 0)
    )
    assert float(right.float().mean()) > 0.95
    assert not module.training
    assert all(not p.requires_grad for p in module.parameters())
