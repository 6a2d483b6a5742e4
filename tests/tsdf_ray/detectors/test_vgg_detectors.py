"""S3FD and DSFD with random weights at a sixteenth of the width: layout, wiring, priors, gradients, messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from tsdf_ray.defenders.objectives import CleanView, hiding_loss, output_loss
from tsdf_ray.defenders.poisoning import PoisonConfig, Poisoner
from tsdf_ray.detectors import load_detector
from tsdf_ray.detectors.dsfd import DSFD
from tsdf_ray.detectors.priors import square_priors
from tsdf_ray.detectors.s3fd import S3FD
from tsdf_ray.detectors.vgg import SIZES, STRIDES, L2Norm, VGGDetector
from tsdf_ray.errors import UserError

KINDS: dict[str, type[VGGDetector]] = {"s3fd": S3FD, "dsfd": DSFD}
OFFICIAL = {"s3fd": "sfd_face.pth", "dsfd": "dsfd_vgg_0.880.pth"}
State = dict[str, torch.Tensor]


def small(kind: str) -> VGGDetector:
    """Random weights under which activations keep their size; the first layer takes colours down to about 1."""
    rng = torch.Generator().manual_seed(3)
    detector = KINDS[kind](width=1 / 16)
    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, nn.Conv2d):
                inputs = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=rng) * (2 / inputs) ** 0.5)
                assert module.bias is not None
                module.bias.copy_(torch.randn(module.bias.shape, generator=rng) * 0.1)
            elif isinstance(module, L2Norm):
                module.weight.mul_(0.5 + torch.rand(module.weight.shape, generator=rng))
        detector.vgg[0].weight.div_(60)
    return detector.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def photos(*shape: int) -> torch.Tensor:
    """Smooth random photos."""
    rng = torch.Generator().manual_seed(1)
    coarse = torch.rand(shape[0], 3, 9, 9, generator=rng) * 2 - 1
    return F.interpolate(coarse, size=shape[1:], mode="bilinear")


def convolve(state: State, name: str, x: torch.Tensor, **how: int) -> torch.Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)


def norm(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return x / x.pow(2).sum(1, keepdim=True).sqrt().add(1e-10) * state[f"{name}.weight"].view(1, -1, 1, 1)


def trunk(state: State, x: torch.Tensor, dilation: int) -> list[torch.Tensor]:
    """The six levels, straight from the state dict."""
    levels = []
    x = (x + 1) / 2 * 255 - torch.tensor([123.0, 117.0, 104.0]).view(1, 3, 1, 1)
    for block in ([0, 2], [5, 7], [10, 12, 14], [17, 19, 21], [24, 26, 28]):
        for index in block:
            x = convolve(state, f"vgg.{index}", x, padding=1).relu()
        if block[0] >= 10:
            levels.append(x)
        x = F.max_pool2d(x, 2, ceil_mode=block[0] == 10)
    x = convolve(state, "vgg.31", x, padding=dilation, dilation=dilation).relu()
    levels.append(convolve(state, "vgg.33", x).relu())
    for first in (0, 2):
        x = convolve(state, f"extras.{first}", levels[-1]).relu()
        levels.append(convolve(state, f"extras.{first + 1}", x, stride=2, padding=1).relu())
    return levels


def s3fd_by_the_book(state: State, x: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Per level: logits [2, H, W] and offsets [4, H, W] of one photo."""
    levels = trunk(state, x, 6)
    for level, name in enumerate(["L2Norm3_3", "L2Norm4_3", "L2Norm5_3"]):
        levels[level] = norm(state, name, levels[level])
    for level, source in enumerate(levels):
        logits = convolve(state, f"conf.{level}", source, padding=1)[0]
        if level == 0:
            logits = torch.stack([torch.stack([logits[0], logits[1], logits[2]]).max(0).values, logits[3]])
        yield logits, convolve(state, f"loc.{level}", source, padding=1)[0]


def dsfd_by_the_book(state: State, x: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    of1, of2, of3, of4, of5, of6 = trunk(state, x, 3)
    fused = [convolve(state, "fpn_topdown.0", of6).relu()]
    for step, level in enumerate([of5, of4, of3, of2, of1]):
        above = convolve(state, f"fpn_topdown.{step + 1}", fused[-1]).relu()
        above = F.interpolate(above, level.shape[-2:], mode="bilinear", align_corners=True)
        fused.append((above * convolve(state, f"fpn_latlayer.{step}", level)).relu())
    for level, source in enumerate(reversed(fused)):
        name, how = f"fpn_fem.{level}", {"padding": 3, "dilation": 3}
        parts = [convolve(state, f"{name}.branch1", source, **how)]
        for branch, layers in (("branch2", (0, 2)), ("branch3", (0, 2, 4))):
            part = source
            for layer in layers:
                part = convolve(state, f"{name}.{branch}.{layer}", part.relu() if layer else part, **how)
            parts.append(part)
        enhanced = torch.cat(parts, 1).relu()
        if level < 3:
            enhanced = norm(state, f"L2Normef{level + 1}", enhanced)
        logits = convolve(state, f"conf_pal2.{level}", enhanced, padding=1)[0]
        yield logits, convolve(state, f"loc_pal2.{level}", enhanced, padding=1)[0]


@pytest.mark.assets
def test_tensor_names_and_shapes_are_the_official_ones(assets: Path, kind: str) -> None:
    official = json.loads((assets / "state_dicts" / f"{kind}.json").read_text())["tensors"]
    with torch.device("meta"):
        ours = {name: list(value.shape) for name, value in KINDS[kind]().state_dict().items()}
    assert ours == official


@pytest.mark.parametrize("size", [(75, 101), (66, 259)], ids=str)
def test_scores_and_boxes_equal_those_of_a_second_implementation(kind: str, size: tuple[int, int]) -> None:
    """On photos whose sides divide by nothing, one wide enough for the dilated convolution to see its neighbours.

    Boxes cell by cell, in shares of the photo as published.
    """
    detector, x = small(kind), photos(1, *size)
    height, width = x.shape[-2:]
    by_the_book = {"s3fd": s3fd_by_the_book, "dsfd": dsfd_by_the_book}[kind]
    scores, boxes = [], []
    for (logits, offsets), stride, size in zip(
        by_the_book(detector.state_dict(), x), (4, 8, 16, 32, 64, 128), (16, 32, 64, 128, 256, 512), strict=True
    ):
        for i in range(logits.shape[1]):
            for j in range(logits.shape[2]):
                scores.append(logits[:, i, j].softmax(0)[1])
                a, b, c, d = offsets[:, i, j]
                x0 = (j + 0.5) / (width / stride) + a * 0.1 * size / width
                y0 = (i + 0.5) / (height / stride) + b * 0.1 * size / height
                w, h = size / width * torch.exp(c * 0.2), size / height * torch.exp(d * 0.2)
                boxes.append(torch.stack([x0 - w / 2, y0 - h / 2, x0 + w / 2, y0 + h / 2]))
    (group,) = detector.raw(x).groups
    torch.testing.assert_close(group.scores_N, torch.stack(scores), atol=1e-4, rtol=1e-3)
    expected = torch.stack(boxes) * torch.tensor([width, height, width, height])
    torch.testing.assert_close(group.boxes_N4, expected, atol=1e-2, rtol=1e-3)


def test_features_are_the_normed_levels(kind: str) -> None:
    detector, x = small(kind), photos(2, 75, 101)
    state = detector.state_dict()
    levels = trunk(state, x, detector.dilation)[:3]
    # 75 -> 37 -> 18 -> (rounded up) 9 -> 4
    assert [tuple(level.shape[2:]) for level in levels] == [(18, 25), (9, 13), (4, 6)]
    for alone, level, plain, name in zip(
        detector.features(x), detector.raw(x).features, levels, detector.norms, strict=True
    ):
        assert torch.equal(alone, level)
        torch.testing.assert_close(level, norm(state, name, plain), atol=1e-4, rtol=1e-4)


def test_priors_of_a_small_photo() -> None:
    """64 x 96: 16 x 24 cells of 4 px, .., one cell each at strides 64 and 128 (and a half more across)."""
    maps = ((16, 24), (8, 12), (4, 6), (2, 3), (1, 2), (1, 1))
    priors = square_priors(maps, STRIDES, SIZES)
    assert len(priors) == 384 + 96 + 24 + 6 + 2 + 1
    assert priors[0].tolist() == [2, 2, 16, 16]
    assert priors[1].tolist() == [6, 2, 16, 16]
    assert priors[24].tolist() == [2, 6, 16, 16]
    assert priors[384].tolist() == [4, 4, 32, 32]
    assert priors[-3].tolist() == [32, 32, 256, 256]
    assert priors[-1].tolist() == [64, 64, 512, 512]
    for kind in KINDS:
        assert len(small(kind).raw(photos(1, 64, 96)).groups[0].scores_N) == len(priors)


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (130, 250)])
def test_any_size(kind: str, size: tuple[int, int]) -> None:
    detector = small(kind)
    out = detector.raw(photos(2, *size))
    assert len(out.features) == len(detector.feature_levels) == 3
    (group,) = out.groups
    assert group.boxes_N4.shape == (len(group.scores_N), 4)
    assert torch.bincount(group.photo_N).tolist() == [len(group.scores_N) // 2] * 2
    assert len(detector.detect(photos(2, *size))) == 2


def test_the_largest_size(kind: str) -> None:
    (boxes,) = small(kind).detect(photos(1, 1024, 1024), 0.9999)
    assert boxes.boxes_N4.shape == (len(boxes), 4)


@pytest.mark.parametrize("shape", [(1, 3, 63, 128), (1, 3, 128, 1025), (1, 1, 128, 128)])
def test_other_shapes_are_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="photos must be"):
        small(kind).features(torch.zeros(shape))


def test_a_batch_equals_its_photos_one_by_one(kind: str) -> None:
    detector, batch = small(kind), photos(3, 64, 96)
    together = detector.detect(batch, 0.5)
    assert sum(map(len, together)) > 0
    for found, photo in zip(together, batch, strict=True):
        (alone,) = detector.detect(photo[None], 0.5)
        torch.testing.assert_close(found.boxes_N4, alone.boxes_N4, atol=1e-2, rtol=1e-4)
        assert torch.equal(found.scores_N, found.scores_N.sort(descending=True).values)


def everything(detector: VGGDetector, x: torch.Tensor) -> torch.Tensor:
    """Features, bounded log-odds and boxes under fixed random weights."""
    out, rng = detector.raw(x), torch.Generator().manual_seed(5)
    values = [*out.features, out.groups[0].scores_N, out.groups[0].boxes_N4.div(100).tanh()]
    return torch.stack([(v * torch.randn(v.shape, generator=rng).to(v)).sum() for v in values]).sum()


def test_every_pixel_gets_a_gradient_that_finite_differences_confirm(kind: str) -> None:
    """Central differences in float64 at ten random entries."""
    detector = small(kind).double()
    x = photos(1, 64, 96).double().requires_grad_()
    (gradient,) = torch.autograd.grad(everything(detector, x), x)
    assert gradient.isfinite().all()
    assert (gradient != 0).double().mean() > 0.99
    step = 1e-6
    with torch.no_grad():
        for entry in torch.randint(x.numel(), (10,), generator=torch.Generator().manual_seed(7)).tolist():
            nudge = torch.zeros(x.numel(), dtype=x.dtype)
            nudge[entry] = step
            nudge = nudge.view_as(x)
            slope = (everything(detector, x + nudge) - everything(detector, x - nudge)) / (2 * step)
            assert float(slope) == pytest.approx(float(gradient.flatten()[entry]), rel=1e-3, abs=1e-5)


def test_a_dead_cell_has_a_finite_gradient() -> None:
    """Where all channels are zero the root of their squares' sum has no slope."""
    x = torch.zeros(1, 4, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(L2Norm(4, 10.0)(x).sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("form", [{"score_form": "log_odds"}, {"objective": "fabricate"}, {"lambda_f": 0.01}])
def test_poison_lowers_its_loss(kind: str, form: dict[str, object]) -> None:
    """Random weights know no faces; all the same the losses reach the photo, and steps along them pay."""
    detector, x = small(kind), photos(2, 64, 64)
    config = PoisonConfig(steps=6, margin=100.0, **form)  # type: ignore[arg-type]
    w, mask = torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)
    delta = Poisoner(config, 0.1, {kind: detector}, 0, 1).poison(x, w, mask, ["a", "b"])
    clean = CleanView.of(detector, x)
    losses = []
    for seen in (x, (x + delta).clamp(-1, 1)):
        raw = detector.raw(seen)
        hides = config.hides_by_log_odds
        losses.append(hiding_loss(raw, 2, config) if hides else output_loss(raw, clean, 64, config))
    assert (losses[1] < losses[0]).all()


def test_absent_weights_name_the_official_file(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{kind}: its weights are not packaged; .* official {OFFICIAL[kind]}"):
        load_detector(kind)
    with pytest.raises(UserError, match=rf"no such weights file: .*mine\.pth; .* official {OFFICIAL[kind]}"):
        load_detector(kind, tmp_path / "mine.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_load_from_a_file(kind: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow file is refused by the official network, and fits a narrow one."""
    saved, path = small(kind), tmp_path / f"mine.{suffix}"
    state = {name: value.clone() for name, value in saved.state_dict().items()}
    if suffix == "pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    full = KINDS[kind].__init__
    with torch.device("meta"), pytest.raises(UserError, match=r"'vgg\.0\.weight': expected \(64, 3, 3, 3\) of floats"):
        KINDS[kind].load(path)
    monkeypatch.setattr(KINDS[kind], "__init__", lambda self: full(self, 1 / 16))
    loaded = KINDS[kind].load(path)
    assert not any(weight.requires_grad for weight in loaded.parameters())
    x = photos(1, 64, 64)
    assert torch.equal(loaded.raw(x).groups[0].scores_N, saved.raw(x).groups[0].scores_N)
