"""`found` and stage 1 of `tsdf`: what is computed, how often, and where it may write."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from counted_family import CountedFamily

from tsdf_ray.defenders import FoundConfig, Knowledge, Tsdf, TsdfConfig, make_defender
from tsdf_ray.defenders.learning import learn_universal
from tsdf_ray.defenders.scene import input_diversity
from tsdf_ray.errors import MatchFailed
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.editor import Editor, EditorConfig
from tsdf_ray.randomness import torch_rng
from tsdf_ray.testing.linear import BrightCells, LinearFamily, dark_photos_with_a_bright_cell


def _knowledge(family: LinearFamily | Editor, photos: FaceSet, precision: str = "float32") -> Knowledge:
    return Knowledge(3, 1, {"g": family.freeze()}, {"bright": BrightCells()}, photos, precision)


def test_clean_passes_are_made_once_and_features_need_the_encoder_alone() -> None:
    photos = dark_photos_with_a_bright_cell(8)
    family = CountedFamily()
    learn_universal(FoundConfig(batch=4, epochs=20), _knowledge(family, photos))
    # 8 photos x 20 visits: 3 feature steps and 1 end-to-end step each; a photo has 3 edits, so 24 clean passes at most.
    assert family.seen["encoder"] == 8 * 20 * 3
    assert family.seen["whole"] == 8 * 20
    assert 8 < family.seen["clean"] <= 24


def test_noise_is_uniform_and_its_own_per_photo_and_round() -> None:
    photos = dark_photos_with_a_bright_cell(2, 64)
    noise = make_defender("noise", {"epsilon": 0.1})
    one, two = (noise.apply(noise.learn(Knowledge(0, number, {}, {}, photos)), photos) for number in (1, 2))
    assert float(one.abs().max()) <= 0.1
    # The variance of a uniform draw in +-e is e^2 / 3; 24,576 draws.
    assert float(one.square().mean()) == pytest.approx(0.01 / 3, rel=0.05)
    for left, right in ((one[0], one[1]), (one[0], two[0])):
        assert abs(float(torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[0, 1])) < 0.05


def test_interruption_breaks_more_than_noise() -> None:
    photos = dark_photos_with_a_bright_cell(8)
    family = Editor(EditorConfig(widths=(8, 8), blocks=1, classifier_width=4, discriminator_widths=(4, 4)))
    with torch.no_grad():
        for parameter in family.parts["generator"].parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch_rng(1, "editor")) * 0.3)
    knowledge = _knowledge(family, photos)
    change: dict[str, float] = {}
    for kind in ("noise", "found"):
        defender = make_defender(kind, {"epsilon": 0.05})
        published = defender.protect(defender.learn(knowledge), photos).images()
        with torch.no_grad():
            clean, broken = (family.edit(x, photos.labels()) for x in (photos.images(), published))
        change[kind] = float((broken - clean).square().mean())
    assert change["found"] > 2 * change["noise"]


@pytest.mark.parametrize("choice", ["random", "weakest"])
def test_a_reserved_share_is_exactly_zero_after_stage_one(choice: str) -> None:
    photos = dark_photos_with_a_bright_cell(8)
    config = TsdfConfig.model_validate({"detectors": ["bright"], "share": {"fraction": 0.4, "choice": choice}})
    state = Tsdf(config).learn(_knowledge(LinearFamily(), photos))
    w, reserved = state.tensors["w"], state.tensors["reserved"].astype(bool)
    assert reserved.sum() == round(0.4 * w.size)
    assert (w[reserved] == 0).all()
    assert (w[~reserved] != 0).mean() > 0.95


def test_the_weakest_share_is_where_an_unrestricted_w_is_small() -> None:
    photos = dark_photos_with_a_bright_cell(8)
    knowledge = _knowledge(LinearFamily(), photos)
    share = {"fraction": 0.4, "choice": "weakest"}
    config = TsdfConfig.model_validate({"detectors": ["bright"], "share": share, "step_size": 0.0005})
    reserved = Tsdf(config).learn(knowledge).tensors["reserved"].astype(bool)
    free = np.abs(learn_universal(config, knowledge).numpy())
    assert free[reserved].max() <= free[~reserved].min()


def test_a_linear_generator_is_broken_by_magnitude_per_image_and_universal() -> None:
    photos = dark_photos_with_a_bright_cell(6)
    knowledge = _knowledge(LinearFamily(), photos)
    power = {}
    for name, config in {"noise": {}, "universal": {}, "each": {"per_image": True, "per_image_steps": 8}}.items():
        defender = make_defender("noise" if name == "noise" else "found", config)
        w = defender.perturb(defender.learn(knowledge), photos)
        assert w.shape[0] == (1 if name == "universal" else 6)
        power[name] = float(w.square().mean())
    assert power["universal"] > 1.5 * power["noise"]
    assert power["each"] > 1.5 * power["noise"]


def test_input_diversity_transforms_half_the_draws_and_keeps_the_size() -> None:
    x = torch.ones(2, 3, 64, 64)
    rng = torch_rng(0, "diversity")
    drawn = [input_diversity(x, rng) for _ in range(400)]
    changed = [out for out in drawn if not torch.equal(out, x)]
    assert all(out.shape == x.shape for out in drawn)
    # Binomial(400, 1/2): 5 standard deviations are 50.
    assert 150 <= len(changed) <= 250
    # 290/256 of 64 is 72 (72.5): at most 8 of 72 rows and columns are padding, so at least 56 x 56 of 64 x 64 is photo.
    share = [float(out.mean()) for out in changed]
    assert min(share) >= (56 / 64) ** 2 - 1e-6
    assert max(share) < 1
    # Padding on every side occurs: the offsets are drawn.
    for side in (out[..., 0, :] for out in changed), (out[..., -1, :] for out in changed):
        assert any(float(edge.max()) == 0 for edge in side)


def test_input_diversity_lets_gradients_through() -> None:
    rng = torch_rng(0, "diversity")
    for _ in range(6):
        x = torch.ones(1, 3, 64, 64, requires_grad=True)
        input_diversity(x, rng).sum().backward()
        assert x.grad is not None
        assert float((x.grad > 0).float().mean()) > 0.7


def test_bfloat16_finds_nearly_the_same_direction() -> None:
    photos = dark_photos_with_a_bright_cell(8)
    family = Editor(EditorConfig(widths=(8, 8), blocks=1, classifier_width=4, discriminator_widths=(4, 4)))
    config = FoundConfig(batch=8)
    full, half = (
        learn_universal(config, _knowledge(family, photos, precision)) for precision in ("float32", "bfloat16")
    )
    assert not torch.equal(full, half)
    assert float(torch.cosine_similarity(full.flatten(), half.flatten(), dim=0)) > 0.9


def test_a_generator_that_gives_nan_ends_the_match_with_its_reason() -> None:
    family = LinearFamily((float("nan"), 1.0, 1.0))
    with pytest.raises(MatchFailed, match="the interruption's gradient is not finite"):
        make_defender("found").learn(_knowledge(family, dark_photos_with_a_bright_cell(4)))


def test_nothing_to_learn_from_is_said() -> None:
    empty = dark_photos_with_a_bright_cell(4).take([])
    with pytest.raises(MatchFailed, match="empty"):
        make_defender("found").learn(_knowledge(LinearFamily(), empty))
    with pytest.raises(MatchFailed, match="generator"):
        make_defender("found").learn(Knowledge(0, 1, {}, {}, dark_photos_with_a_bright_cell(4)))
