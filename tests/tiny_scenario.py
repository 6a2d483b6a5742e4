"""A scenario of tiny photos and tiny models: the packaged generator and judge are not needed."""

from __future__ import annotations

from pathlib import Path

import torch
from photo_folders import write_photos

from tsdf_ray.generators import save_family
from tsdf_ray.judges.judge import save_judge
from tsdf_ray.judges.network import JudgeNet
from tsdf_ray.testing.tiny import tiny_editor, tiny_faces

SIZE = 64
"""The smallest photos that detectors take."""


def tiny_scenario(folder: Path, defenders: str, steps: int, rounds: int, more: str = "") -> Path:
    """Writes photos, models and the scenario, mine.yaml, into `folder`; the attacker b trains for some steps."""
    save_family(folder / "tiny.safetensors", tiny_editor(0))
    torch.manual_seed(0)
    save_judge(folder / "judge.safetensors", JudgeNet())
    photos = write_photos(folder / "photos", tiny_faces(40, size=SIZE))
    path = folder / "mine.yaml"
    path.write_text(
        f"""\
name: mine
rounds: {rounds}
precision: float32
generator: {folder / "tiny.safetensors"}
judge: {folder / "judge.safetensors"}
faces: {{source: folder, path: {photos}, size: {SIZE}, counts: {{defender: 4, attacker: 8, evaluation: 4}}}}
defenders: {defenders}
attackers: {{b: {{collect: {{photos: 4}}, retrain: {{train: {{steps: {steps}, batch: 4}}}}}}}}
evaluation: {{detectors: [retinaface], references: [], decay: [0, 1], resamples: 100, samples: 1}}
{more}"""
    )
    return path
