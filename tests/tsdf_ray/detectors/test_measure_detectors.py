"""The script behind docs/detectors.md."""

from __future__ import annotations

import argparse
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tsdf_ray.errors import UserError
from tsdf_ray.faces import Counts, FacesConfig

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "measure_detectors.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="measure_detectors")


def test_a_row_per_loadable_detector(script: dict[str, Any]) -> None:
    """Two photos with a face and a grey one."""
    counts = Counts(defender=1, attacker=1, evaluation=2)
    (faces,) = script["squares"](FacesConfig(counts=counts))
    found = list(script["rows"]({"sample": [faces, torch.zeros(1, 3, 128, 128)]}, {}, 0.7))
    rows = {row.detector: row for row in found if not isinstance(row, str)}
    assert list(rows) == ["retinaface", "mtcnn", "centerface"]
    for row in rows.values():
        assert (row.photos, row.with_face, len(row.scores)) == (3, 2, 2)
        assert row.milliseconds > 0
        assert str(row).startswith(f"| {row.detector} | 3 sample | 67% | 2 | ")


def test_a_detector_that_cannot_be_loaded_is_a_line(script: dict[str, Any], tmp_path: Path) -> None:
    photos = {"grey": [torch.zeros(1, 3, 64, 64)]}
    found = list(script["rows"](photos, {"mtcnn": tmp_path / "absent.pth"}, 0.7))
    lines = [row for row in found if isinstance(row, str)]
    assert "absent.pth: no such weights file" in lines[0]
    assert ["sfd_face.pth" in lines[1], "dsfd_vgg_0.880.pth" in lines[2]] == [True, True]
    first = next(str(row) for row in found if not isinstance(row, str))
    assert first.startswith("| retinaface | 1 grey | 0% | 0 | none found |")


def test_crowds_are_shrunk_to_what_detectors_take(script: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \.jpg files"):
        script["crowds"](tmp_path)
    Image.new("RGB", (2048, 600)).save(tmp_path / "a.jpg")
    Image.new("RGB", (300, 200), "white").save(tmp_path / "b.jpg")
    wide, small = script["crowds"](tmp_path)
    assert wide.shape == (1, 3, 300, 1024)
    assert small.shape == (1, 3, 200, 300)
    assert [float(wide.mean()), float(small.mean())] == [-1.0, 1.0]


def test_a_weights_file_is_named_by_detector(script: dict[str, Any]) -> None:
    assert script["named_file"]("mtcnn=a/b=c.pth") == ("mtcnn", Path("a/b=c.pth"))
    for text in ("mtcnn", "viola=a.pth"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=FILE with NAME one of retinaface"):
            script["named_file"](text)
