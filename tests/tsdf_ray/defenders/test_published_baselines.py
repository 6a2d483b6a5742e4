"""The published baselines against cases of linear generators computed by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tsdf_ray.defenders import DefenceState, Knowledge, make_defender
from tsdf_ray.defenders.cmua import fuse, label_vectors
from tsdf_ray.defenders.interruption import edits_in_turn
from tsdf_ray.errors import MatchFailed
from tsdf_ray.faces.faceset import HAIR, FaceSet
from tsdf_ray.randomness import torch_rng
from tsdf_ray.testing.linear import LinearFamily, dark_photos_with_a_bright_cell

EPSILON = 0.05
ATTRIBUTES = (*HAIR, "Male")


def _grey(count: int = 1) -> FaceSet:
    """Grey photos: nothing is clamped. Black hair, not male."""
    labels = np.tile(np.array([[1, 0, 0, 0]], np.uint8), (count, 1))
    pixels = np.full((count, 3, 32, 32), 128, np.uint8)
    return FaceSet(pixels, labels, ATTRIBUTES, tuple(f"grey-{number}" for number in range(count)))


def _knowledge(photos: FaceSet, **families: LinearFamily) -> Knowledge:
    return Knowledge(3, 1, {name: family.freeze() for name, family in families.items()}, {}, photos)


def test_edits_take_turns_and_leave_out_what_a_photo_shows() -> None:
    labels = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 1.0]])
    turns = [edits_in_turn(labels, ATTRIBUTES, step).tolist() for step in range(4)]
    assert turns[0] == [[0, 1, 0, 0], [1, 0, 0, 1]]
    assert turns[1] == [[0, 0, 1, 0], [0, 1, 0, 1]]
    assert turns[2] == [[1, 0, 0, 1], [0, 0, 1, 0]]
    assert turns[3] == turns[0]


def test_two_pgd_steps_by_hand() -> None:
    """MSE of a linear generator falls and rises with gain^2 w^2: every entry moves away from zero, 0.01 per step."""
    photos = _grey(2)
    families = {"red": LinearFamily((2.0, 0.0, 0.0)), "green": LinearFamily((0.0, -1.0, 0.0))}
    knowledge = _knowledge(photos, **families)
    pgd = make_defender("pgd", {"epsilon": EPSILON, "steps": 2})
    w = pgd.apply(pgd.learn(knowledge), photos)
    for row, name in zip(w, photos.ids, strict=True):
        start = (torch.rand(3, 32, 32, generator=torch_rng(3, 1, "defender", "start", name)) * 2 - 1) * EPSILON
        moved = (start + 0.02 * start.sign()).clamp(-EPSILON, EPSILON)
        torch.testing.assert_close(row[:2], moved[:2], rtol=0, atol=1e-7)
        # No generator sees blue: it keeps its start.
        torch.testing.assert_close(row[2], start[2], rtol=0, atol=0)


def test_fusion_by_hand() -> None:
    # Factor 2, epsilon 0.05: 0.02 -> 0.04, 0.04 -> clipped to 0.05, -0.1 -> -0.05; means over the two photos.
    change = torch.tensor([[0.02, 0.02], [0.04, -0.1]]).reshape(2, 1, 1, 2)
    torch.testing.assert_close(fuse(change, 2.0, EPSILON).flatten(), torch.tensor([0.045, -0.005]))


def test_label_vectors_are_the_photos_own_labels_and_every_edit() -> None:
    own, *edited = label_vectors(torch.tensor([[1.0, 0, 0, 0]]), ATTRIBUTES)
    assert own.tolist() == [[1, 0, 0, 0]]
    assert [c.tolist()[0] for c in edited] == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1]]


def test_one_cmua_step_per_label_by_hand() -> None:
    """A step of 1 carries each entry of x + noise beyond epsilon, so eta is epsilon times the noise's sign s.

    Five label vectors with fresh noise: w / epsilon = s1/16 + s2/16 + s3/8 + s4/4 + s5/2, and all 32 sums occur in
    3072 entries.
    """
    photos = _grey()
    cmua = make_defender("cmua", {"epsilon": EPSILON, "steps": 1, "step_size": 1.0})
    w = cmua.learn(_knowledge(photos, one=LinearFamily())).tensors["w"]
    shares = (1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
    sums = {
        round(sum(s * v for s, v in zip(signs, shares, strict=True)), 4)
        for signs in itertools.product((-1, 1), repeat=5)
    }
    assert {round(float(v), 4) for v in np.unique((w / EPSILON).round(4))} == sums


def test_cmua_continues_from_the_watermark_within_a_label() -> None:
    """Both steps against one label share a noise: the second starts from w and pushes it on, so no entry is halved."""
    photos = _grey()
    family = LinearFamily()
    family.attributes = ()
    bare = FaceSet(photos.pixels_BCHW, np.zeros((1, 0), np.uint8), (), photos.ids)
    cmua = make_defender("cmua", {"epsilon": EPSILON, "steps": 2, "step_size": 1.0})
    w = cmua.learn(_knowledge(bare, one=family)).tensors["w"]
    # One label vector (no attributes): eta1 = w = +-epsilon, eta2 has w's sign.
    np.testing.assert_allclose(np.abs(w), EPSILON, rtol=1e-6)


def test_a_factor_of_zero_leaves_a_generator_out() -> None:
    knowledge = _knowledge(_grey(), one=LinearFamily())
    none, full = (make_defender("cmua", {"factors": {"one": f}}).learn(knowledge).tensors["w"] for f in (0.0, 1.0))
    assert not none.any()
    assert np.abs(full).mean() > 0.02


def test_what_a_baseline_cannot_do_is_said() -> None:
    photos = dark_photos_with_a_bright_cell(3)
    for kind in ("pgd", "cmua"):
        defender, nobody = make_defender(kind), Knowledge(0, 1, {}, {}, photos)
        with pytest.raises(MatchFailed, match="needs a generator"):
            defender.perturb(defender.learn(nobody), photos)
    known = _knowledge(photos, one=LinearFamily())
    with pytest.raises(MatchFailed, match=r"factors of \['other'\]"):
        make_defender("cmua", {"factors": {"other": 2.0}}).learn(known)
    with pytest.raises(MatchFailed, match="empty"):
        make_defender("cmua").learn(_knowledge(photos.take([]), one=LinearFamily()))
    broken = LinearFamily((float("nan"), 1.0, 1.0))
    with pytest.raises(MatchFailed, match="not finite"):
        make_defender("pgd").perturb(DefenceState(_knowledge(photos, one=broken)), photos)
