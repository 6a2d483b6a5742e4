"""Weights: official names, the official file, digests, and what the user reads when a file does not fit."""

from __future__ import annotations

import itertools
import json
import math
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from tsdf_ray.detectors import load_detector, weights
from tsdf_ray.detectors.geometry import iou
from tsdf_ray.errors import UserError

RETINAFACE = weights.FOLDER / weights.PACKAGED["retinaface"][0]
MTCNN = weights.FOLDER / weights.PACKAGED["mtcnn"][0]


def by_the_book(state: dict[str, torch.Tensor], x: torch.Tensor, sizes: list[list[int]]) -> list[torch.Tensor]:
    """RetinaFace written a second time, straight from the state dict: norms apart, boxes in shares of the photo.

    Returns each photo's boxes with score > 0.7 after a plain NMS loop, [K, 5] with the score, best first.
    """

    def convolve(x: torch.Tensor, name: str, norm: str, stride: int = 1, slope: float = 0.1) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        groups = x.shape[1] // weight.shape[1]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
        scale, shift, mean, var = (state[f"{norm}.{k}"] for k in ("weight", "bias", "running_mean", "running_var"))
        return F.leaky_relu(F.batch_norm(x, mean, var, scale, shift, eps=1e-5), slope)

    def block(x: torch.Tensor, name: str, stride: int = 1, slope: float = 0.1) -> torch.Tensor:
        return convolve(x, f"{name}.0", f"{name}.1", stride, slope)

    def separable(x: torch.Tensor, name: str, stride: int) -> torch.Tensor:
        return convolve(convolve(x, f"{name}.0", f"{name}.1", stride), f"{name}.3", f"{name}.4")

    height, width = x.shape[-2:]
    bgr = (x[:, [2, 1, 0]] + 1) / 2 * 255 - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    stages, out = [], block(bgr, "body.stage1.0", stride=2)
    for stage, strides in (("stage1", [1, 2, 1, 2, 1]), ("stage2", [2, 1, 1, 1, 1, 1]), ("stage3", [2, 1])):
        for index, stride in enumerate(strides, start=int(stage == "stage1")):
            out = separable(out, f"body.{stage}.{index}", stride)
        stages.append(out)
    levels = [block(level, f"fpn.output{k + 1}") for k, level in enumerate(stages)]
    levels[1] = block(levels[1] + F.interpolate(levels[2], levels[1].shape[-2:]), "fpn.merge2")
    levels[0] = block(levels[0] + F.interpolate(levels[1], levels[0].shape[-2:]), "fpn.merge1")
    logits, offsets, priors = [], [], []
    for k, level in enumerate(levels):
        five = block(level, f"ssh{k + 1}.conv5X5_1")
        seven = block(five, f"ssh{k + 1}.conv7X7_2")
        parts = [(level, "conv3X3"), (five, "conv5X5_2"), (seven, "conv7x7_3")]
        context = torch.cat([block(part, f"ssh{k + 1}.{name}", slope=1.0) for part, name in parts], 1).relu()
        for head, values, into in (("ClassHead", 2, logits), ("BboxHead", 4, offsets)):
            name = f"{head}.{k}.conv1x1"
            answer = F.conv2d(context, state[f"{name}.weight"], state[f"{name}.bias"])
            into.append(answer.permute(0, 2, 3, 1).reshape(len(x), -1, values))
        stride = 8 * 2**k
        for i, j in itertools.product(range(math.ceil(height / stride)), range(math.ceil(width / stride))):
            for size in sizes[k]:
                centre = [(j + 0.5) * stride / width, (i + 0.5) * stride / height]
                priors.append([*centre, size / width, size / height])
    prior, offset = torch.tensor(priors), torch.cat(offsets, 1)
    centre, side = prior[:, :2] + offset[..., :2] * 0.1 * prior[:, 2:], prior[:, 2:] * torch.exp(offset[..., 2:] * 0.2)
    boxes = torch.cat([centre - side / 2, centre + side / 2], -1) * torch.tensor([width, height, width, height])
    found = torch.cat([boxes, F.softmax(torch.cat(logits, 1), -1)[..., 1:]], -1)
    result = []
    for rows in found:
        kept: list[torch.Tensor] = []
        for row in sorted(rows[rows[:, 4] > 0.7], key=lambda row: -float(row[4])):
            if all(float(iou(row[None, :4], other[None, :4])) <= 0.4 for other in kept):
                kept.append(row)
        result.append(torch.stack(kept))
    return result


@pytest.mark.assets
@pytest.mark.parametrize(
    ("official", "sizes"),
    [(True, [[10, 20], [32, 64], [128, 256]]), (False, [[16, 32], [64, 128], [256, 512]])],
    ids=["official file", "packaged file"],
)
def test_boxes_equal_those_of_a_second_implementation(
    assets: Path, synthetic_faces: torch.Tensor, crowd: torch.Tensor, official: bool, sizes: list[list[int]]
) -> None:
    if official:
        file = assets / "weights" / "retinaface_mobilenet0.25_Final.pth"
        state = torch.load(file, map_location="cpu", weights_only=True)
        state = {name.removeprefix("module."): value for name, value in state.items()}
        detector = load_detector("retinaface", file)
    else:
        state, detector = load_file(RETINAFACE), load_detector("retinaface")
    for photos in (synthetic_faces[:8], crowd):
        expected = by_the_book(state, photos, sizes)
        for boxes, rows in zip(detector.detect(photos), expected, strict=True):
            torch.testing.assert_close(boxes.boxes_N4, rows[:, :4], atol=1e-2, rtol=0)
            torch.testing.assert_close(boxes.scores_N, rows[:, 4], atol=1e-4, rtol=0)


@pytest.mark.assets
def test_the_official_file_finds_the_same_faces(assets: Path, synthetic_faces: torch.Tensor) -> None:
    """It is another training than the packaged file (other anchors, wider boxes), so the boxes are close, not equal."""
    official = load_detector("retinaface", assets / "weights" / "retinaface_mobilenet0.25_Final.pth")
    found, reference = official.detect(synthetic_faces), load_detector("retinaface").detect(synthetic_faces)
    overlaps = [float(iou(a.boxes_N4[:1], b.boxes_N4[:1])) for a, b in zip(found, reference, strict=True) if len(a)]
    assert len(overlaps) >= 95
    assert min(overlaps) > 0.4
    assert sum(overlaps) / len(overlaps) > 0.6


@pytest.mark.assets
def test_tensor_names_and_shapes_are_the_official_ones(assets: Path) -> None:
    official = json.loads((assets / "state_dicts" / "retinaface_mobilenet025.json").read_text())["tensors"]
    ours = {name: list(value.shape) for name, value in load_file(RETINAFACE).items()}
    assert ours == {name: shape for name, shape in official.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("name", sorted(weights.PACKAGED))
def test_a_copy_of_the_packaged_file_loads_as_a_users_file(name: str, tmp_path: Path) -> None:
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes((weights.FOLDER / weights.PACKAGED[name][0]).read_bytes())
    photo = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    mine, packaged = load_detector(name, copy).features(photo), load_detector(name).features(photo)
    assert all(torch.equal(a, b) for a, b in zip(mine, packaged, strict=True))


@pytest.mark.parametrize("name", sorted(weights.PACKAGED))
def test_a_changed_packaged_file_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = weights.PACKAGED[name][0]
    changed = bytearray((weights.FOLDER / file).read_bytes())
    changed[-1] ^= 1
    (tmp_path / file).write_bytes(changed)
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=f"{file}: sha256 expected {weights.PACKAGED[name][1]}, found"):
        load_detector(name)
    (tmp_path / file).unlink()
    with pytest.raises(UserError, match="missing; reinstall"):
        load_detector(name)


def test_a_file_that_does_not_fit_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    tensors = load_file(MTCNN)

    def message(changed: dict[str, torch.Tensor]) -> str:
        save_file(changed, path)
        with pytest.raises(UserError) as caught:
            load_detector("mtcnn", path)
        return str(caught.value)

    without = {key: value for key, value in tensors.items() if key != "rnet.fc.weight"}
    assert message(without) == f"{path}: tensor 'rnet.fc.weight' is missing; mtcnn needs it with shape (128, 576)"
    wrong = tensors | {"onet.conv4.bias": torch.zeros(3)}
    assert "tensor 'onet.conv4.bias': expected (128,) of floats, found (3,)" in message(wrong)
    whole = tensors | {"pnet.conv1.bias": torch.zeros(10, dtype=torch.int64)}
    assert "'pnet.conv1.bias': expected (10,) of floats, found (10,) of torch.int64" in message(whole)
    assert "'extra' does not belong to mtcnn" in message(tensors | {"extra": torch.zeros(1)})
    with pytest.raises(UserError, match=r"tensor 'body\.stage1"):
        load_detector("retinaface", MTCNN)


class Evil:
    """Unpickling this would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


def test_unreadable_files_are_refused_and_pickles_do_not_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pth: no such weights file"):
        load_detector("retinaface", tmp_path / "absent.pth")
    for name in ("page.safetensors", "page.pth"):
        (tmp_path / name).write_text("<html>404</html>")
        with pytest.raises(UserError, match=f"{name}: not a readable weights file"):
            load_detector("retinaface", tmp_path / name)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil(tmp_path / "touched")))
    with pytest.raises(UserError, match=r"evil\.pth: not a readable weights file"):
        load_detector("retinaface", tmp_path / "evil.pth")
    assert not (tmp_path / "touched").exists()
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="expected a state dict"):
        load_detector("retinaface", tmp_path / "list.pth")


def test_an_unknown_detector_lists_the_valid_ones() -> None:
    with pytest.raises(UserError, match="unknown name 'viola'; valid names: centerface, dsfd, mtcnn, retinaface, s3fd"):
        load_detector("viola")
