"""The published baselines against cases of linear generators computed by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tsdf_ray.defenders import DefenceState, Knowledge, make_defender
from tsdf_ray.defenders.anti_forgery import shifted, to_lab
from tsdf_ray.defenders.cmua import fuse, label_vector
from tsdf_ray.defenders.face_poison import cosine_basis, distance_slopes, unit
from tsdf_ray.defenders.learning import edits_in_turn
from tsdf_ray.errors import MatchFailed, UserError
from tsdf_ray.faces.faceset import HAIR, FaceSet
from tsdf_ray.randomness import torch_rng
from tsdf_ray.testing.linear import BrightCells, LinearFamily, dark_photos_with_a_bright_cell

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
    own, *edited = [label_vector(torch.tensor([[1.0, 0, 0, 0]]), ATTRIBUTES, number) for number in range(5)]
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
    for kind in ("pgd", "cmua", "anti_forgery"):
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


# CIE Lab of the sRGB primaries under D65 (2 degrees), as published by B. Lindbloom and in every colour calculator.
PUBLISHED_LAB = {
    (255, 0, 0): (53.2408, 80.0925, 67.2032),
    (0, 255, 0): (87.7347, -86.1827, 83.1793),
    (0, 0, 255): (32.2970, 79.1875, -107.8602),
    (255, 255, 255): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (128, 128, 128): (53.5850, 0.0, 0.0),
}


@pytest.mark.parametrize("rgb", PUBLISHED_LAB)
def test_lab_has_the_published_values(rgb: tuple[int, int, int]) -> None:
    x = (torch.tensor(rgb) / 127.5 - 1).reshape(1, 3, 1, 1)
    torch.testing.assert_close(to_lab(x).flatten(), torch.tensor(PUBLISHED_LAB[rgb]), rtol=0, atol=0.02)
    torch.testing.assert_close(shifted(to_lab(x), torch.zeros(1, 2, 1, 1)), x, rtol=0, atol=1e-4)


def test_a_shift_moves_a_and_b_by_110_p_and_leaves_the_lightness() -> None:
    x = torch.zeros(1, 3, 1, 1)
    p = torch.tensor([0.05, -0.02]).reshape(1, 2, 1, 1)
    lab = to_lab(shifted(to_lab(x), p))
    torch.testing.assert_close(lab.flatten(), to_lab(x).flatten() + torch.tensor([0.0, 5.5, -2.2]), rtol=0, atol=0.02)


def test_every_colour_lets_gradients_through() -> None:
    """Black, white and the primaries sit on the kinks of both transfer curves."""
    corners = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=3))).T.reshape(1, 3, 1, 27)
    p = torch.zeros(1, 2, 1, 27, requires_grad=True)
    (gradient,) = torch.autograd.grad(shifted(to_lab(corners), p).sum(), p)
    assert bool(torch.isfinite(gradient).all())
    assert float((gradient != 0).float().mean()) > 0.8


def test_two_anti_forgery_steps_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """x' = x + (p_a, p_b, 0): Adam's first two steps are lr * sign, whatever the gradient's size.

    With photos of one pixel value and a generator of gains (2, 1, 1) the gradient of MSE is (8 p_a, 2 p_b) / 3072 plus
    what the start leaves; from p = 0 nothing would move, so the stand-in starts at (0.01, -0.02).
    """
    start = torch.tensor([0.01, -0.02]).reshape(1, 2, 1, 1)

    def stand_in(lab: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        return lab + torch.cat([p + start, torch.zeros_like(p[:, :1])], dim=1)

    monkeypatch.setattr("tsdf_ray.defenders.anti_forgery.to_lab", lambda x: x)
    monkeypatch.setattr("tsdf_ray.defenders.anti_forgery.shifted", stand_in)
    photos = _grey()
    defender = make_defender("anti_forgery", {"steps": 2, "lr": 0.001, "colour_limit": 0.0015})
    w = defender.apply(DefenceState(_knowledge(photos, one=LinearFamily((2.0, 1.0, 1.0)))), photos)
    # Two steps of 0.001 away from zero, stopped at the limit: 0.01 + 0.0015 and -0.02 - 0.0015.
    wanted = torch.tensor([0.0115, -0.0215, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 32, 32)
    torch.testing.assert_close(w, wanted, rtol=0, atol=1e-5)


class TwoLevels(BrightCells):
    """First level: the pixels times 2; second: the first level's sum over colours, times `through` (0: a branch)."""

    def __init__(self, through: float = 3.0) -> None:
        super().__init__()
        self.through = through

    def features(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = 2 * x_BCHW
        source = first if self.through else x_BCHW
        return first, (self.through or 3.0) * source.sum(1, keepdim=True)


def test_importance_by_hand() -> None:
    """L1 distance of the last level, 3 * (2 r + 2 g + 2 b): its slope is its sign, times 3 at the first level."""
    clean, masked = torch.full((1, 3, 1, 2), 0.5), torch.tensor([0.0, 0.9]).expand(1, 3, 1, 2).clone().requires_grad_()
    chained, branched = TwoLevels(), TwoLevels(0.0)
    first, last = distance_slopes(chained.features(masked), chained.features(clean))
    assert last.tolist() == [[[[-1.0, 1.0]]]]
    assert first.tolist() == [[[[-3.0, 3.0]]] * 3]
    # In a branch the first level's own distance counts.
    first, last = distance_slopes(branched.features(masked), branched.features(clean))
    assert last.tolist() == [[[[-1.0, 1.0]]]]
    assert first.tolist() == [[[[-1.0, 1.0]]] * 3]


def test_two_face_poison_steps_by_hand() -> None:
    """Dropped pixels only ever dim a bright photo, so the importance is negative everywhere and the photo goes darker.

    The features are linear: the plain step and the step over spectra have the same negative gradient for all entries.
    """
    photos = _grey().with_pixels(np.full((1, 3, 32, 32), 191, np.uint8))
    knowledge = Knowledge(3, 1, {}, {"bright": TwoLevels()}, photos)
    config = {"steps": 2, "similarity": 0.0, "spectrum_noise": 0.0, "detectors": ["bright"], "epsilon": 0.08}
    defender = make_defender("face_poison", config)
    w = defender.apply(defender.learn(knowledge), photos)
    torch.testing.assert_close(w, torch.full_like(w, -0.04), rtol=0, atol=1e-6)


def test_the_similarity_pushes_away_from_the_clean_direction() -> None:
    photos = dark_photos_with_a_bright_cell(2)
    knowledge = Knowledge(3, 1, {}, {"bright": BrightCells()}, photos)
    config = {"level_weights": [0.0], "detectors": ["bright"], "epsilon": 0.08}
    defender = make_defender("face_poison", config)
    published = defender.protect(defender.learn(knowledge), photos).images()
    clean, found = (BrightCells().features(x)[-1] for x in (photos.images(), published))
    noise = make_defender("noise", {"epsilon": 0.08})
    noisy = BrightCells().features(noise.protect(noise.learn(knowledge), photos).images())[-1]
    assert bool(((unit(clean) * unit(found)).sum(1) < (unit(clean) * unit(noisy)).sum(1)).all())


def test_the_spectrum_basis_is_the_published_transform() -> None:
    basis = cosine_basis(8)
    torch.testing.assert_close(basis @ basis.T, torch.eye(8), rtol=0, atol=1e-6)
    # The first row is constant 1 / sqrt(8); the quantised luminance example of the JPEG norm uses the same transform.
    torch.testing.assert_close(basis[0], torch.full((8,), 8**-0.5))
    torch.testing.assert_close(basis[1, 0], torch.tensor(0.5 * np.cos(np.pi / 16), dtype=torch.float32))


def test_face_poison_needs_one_detector_it_may_know() -> None:
    photos = dark_photos_with_a_bright_cell(2)
    for given in ([], ["bright", "mtcnn"]):
        with pytest.raises(UserError, match="one detector"):
            make_defender("face_poison", {"detectors": given})
    defender = make_defender("face_poison", {"detectors": ["mtcnn"]})
    known = Knowledge(0, 1, {}, {"bright": BrightCells()}, photos)
    with pytest.raises(MatchFailed, match="'mtcnn', which it may not know; known: bright"):
        defender.perturb(defender.learn(known), photos)
