"""The light editor: shapes, range, the identity it starts from, where its gradients go."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tsdf_ray.errors import UserError
from tsdf_ray.generators import Editor, EditorConfig
from tsdf_ray.generators.domains import domain_index, label_cross_entropy
from tsdf_ray.generators.few_photos import AttributeClassifier
from tsdf_ray.testing.tiny import TINY_SIZE, tiny_editor, tiny_faces

ATTRIBUTES = EditorConfig().attributes


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_sides_that_do_not_fit_are_refused_and_those_that_fit_work() -> None:
    editor = Editor(EditorConfig(widths=(8, 8, 8), blocks=1, classifier_width=4))
    for side in (33, 40, 16):
        with pytest.raises(UserError, match="multiple of 16 from 32 on"):
            editor.check_side(side, "faces.size")
    for side in (32, 48):
        editor.check_side(side, "faces.size")
        assert editor.edit(torch.zeros(1, 3, side, side), torch.eye(4)[:1]).shape == (1, 3, side, side)


def test_shapes_and_range_of_edits() -> None:
    editor = tiny_editor(0)
    faces = tiny_faces(3)
    edited, mid = editor.edit_and_features(faces.images(), faces.labels())
    assert edited.shape == (3, 3, TINY_SIZE, TINY_SIZE)
    assert edited.dtype == torch.float32
    assert mid.shape == (3, 8, TINY_SIZE // 8, TINY_SIZE // 8)
    assert mid.dtype == torch.float32
    assert edited.abs().max() <= 1.0


@settings(max_examples=15, deadline=None)
@given(side=st.sampled_from([32, 40, 64, 96]), scale=st.floats(0.0, 50.0), seed=st.integers(0, 2**31))
def test_edits_stay_in_range_and_finite_at_any_size(side: int, scale: float, seed: int) -> None:
    editor = tiny_editor(0)
    with torch.no_grad():
        editor.generator.head.weight.mul_(scale)
        x = torch.rand(2, 3, side, side, generator=rng().manual_seed(seed)) * 2 - 1
        edited = editor.edit(x.round(), torch.eye(4)[:2])
    assert edited.shape == x.shape
    assert bool(torch.isfinite(edited).all())
    assert edited.abs().max() <= 1.0


def test_encoder_alone_gives_the_mid_feature_of_the_full_pass() -> None:
    editor = tiny_editor(1)
    faces = tiny_faces(4)
    alone = editor.features(faces.images(), faces.labels())
    assert torch.equal(alone, editor.edit_and_features(faces.images(), faces.labels())[1])


def test_features_do_not_run_the_decoder() -> None:
    editor = tiny_editor(1)
    with torch.no_grad():
        editor.generator.head.weight.fill_(float("nan"))
        editor.generator.ups[0].up.weight.fill_(float("nan"))
    faces = tiny_faces(2)
    assert bool(torch.isfinite(editor.features(faces.images(), faces.labels())).all())


def test_without_a_residual_the_editor_is_the_identity() -> None:
    editor = tiny_editor(2)
    with torch.no_grad():
        editor.generator.head.weight.zero_()
        editor.generator.head.bias.zero_()  # type: ignore[union-attr]
    x = tiny_faces(4).images().clamp(-0.97, 0.97)
    torch.testing.assert_close(editor.edit(x, tiny_faces(4).labels()), x, atol=1e-5, rtol=0)


def test_the_labels_change_the_edit() -> None:
    editor = tiny_editor(3)
    x = tiny_faces(1).images()
    edits = [editor.edit(x, torch.eye(4)[i : i + 1]) for i in range(4)]
    assert all((edits[i] - edits[j]).abs().max() > 1e-3 for i in range(4) for j in range(i))


def test_loss_gradients_reach_only_the_trained_part() -> None:
    editor = tiny_editor(4)
    faces = tiny_faces(8)
    x, own, target = faces.images(), faces.labels(), faces.labels().roll(1, 0)
    sum(editor.discriminator_loss(x, own, target, rng()).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in editor.generator.parameters())
    # Weights; a bias may lie behind a saturated unit in so small a network.
    trained = [p for p in editor.discriminator.parameters() if p.ndim == 4]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    editor.discriminator.requires_grad_(False)
    sum(editor.generator_loss(x, own, target, rng()).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in editor.generator.parameters())
    assert all(p.grad is None for p in editor.parts["classifier"].parameters())


def test_a_given_fake_is_used_and_gives_the_same_losses() -> None:
    editor = tiny_editor(5)
    faces = tiny_faces(4)
    x, own, target = faces.images(), faces.labels(), faces.labels().roll(1, 0)
    fake = editor.edit(x, target)
    for with_it, without in (
        (editor.generator_loss(x, own, target, rng(), fake), editor.generator_loss(x, own, target, rng())),
        (
            editor.discriminator_loss(x, own, target, rng(), fake),
            editor.discriminator_loss(x, own, target, rng()),
        ),
    ):
        assert {k: float(v.detach()) for k, v in with_it.items()} == {k: float(v.detach()) for k, v in without.items()}
    other = editor.generator_loss(x, own, target, rng(), x.clone())
    assert float(other["g_cycle"].detach()) != float(editor.generator_loss(x, own, target, rng())["g_cycle"].detach())


def test_terms_and_weights_against_a_hand_computed_case(monkeypatch: pytest.MonkeyPatch) -> None:
    config = EditorConfig(widths=(8, 8), blocks=1, classifier_width=4)
    weights = {"adversarial_weight": 2.0, "classifier_weight": 0.25, "wrong_label_weight": 0.25}
    editor = Editor(config.model_copy(update=weights))
    # Verdicts by map: black 0.5, blond 1, brown 3, not male 2, male -1.
    verdicts = torch.tensor([0.5, 1.0, 3.0, 2.0, -1.0])[None, :, None, None]
    monkeypatch.setattr(editor.discriminator, "forward", lambda x: verdicts.expand(len(x), 5, 2, 2))
    with torch.no_grad():
        classifier = editor.parts["classifier"]
        assert isinstance(classifier, AttributeClassifier)
        classifier.head.weight.zero_()
        classifier.head.bias.zero_()
    x = tiny_faces(1).images()
    own, target = torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[0.0, 0, 1, 0]])  # black to brown, not male
    terms = editor.discriminator_loss(x, own, target, rng())
    assert float(terms["d_real"]) == pytest.approx((0.5**2 + 1.0**2) / 2)  # (0.5 - 1)^2, (2 - 1)^2
    assert float(terms["d_fake"]) == pytest.approx(0.5 * (3.0**2 + 2.0**2) / 2)
    assert float(terms["d_wrong"]) == pytest.approx(0.25 * 3.0**2)  # the changed label alone: brown
    terms = editor.generator_loss(x, own, target, rng())
    assert float(terms["g_adversarial"].detach()) == pytest.approx(2 * (2.0**2 + 1.0**2) / 2)
    assert float(terms["g_classifier"].detach()) == pytest.approx(0.25 * (1.0986123 + 0.6931472))  # ln 3 + ln 2


def test_a_photo_already_as_asked_has_no_wrong_label() -> None:
    editor = tiny_editor(6)
    editor.config = editor.config.model_copy(update={"augment": False})
    faces = tiny_faces(4)
    x, own = faces.images(), faces.labels()
    target = own.clone()
    target[0, 3] = 1 - target[0, 3]
    with_one = editor.discriminator_loss(x, own, target, rng())["d_wrong"]
    alone = editor.discriminator_loss(x[:1], own[:1], target[:1], rng())["d_wrong"]
    torch.testing.assert_close(with_one, alone)
    assert float(editor.discriminator_loss(x, own, own, rng())["d_wrong"].detach()) == 0.0


def test_every_label_combination_has_its_own_number() -> None:
    combinations = [[float(h == i) for i in range(3)] + [m] for h in range(3) for m in (0.0, 1.0)]
    assert domain_index(torch.tensor(combinations), ATTRIBUTES).tolist() == list(range(6))
    assert domain_index(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), ("Male", "Young")).tolist() == [1, 2]


def test_label_cross_entropy_treats_hair_as_one_choice() -> None:
    logits = torch.tensor([[0.0, 2.0, 0.0, -1.0]])
    right = label_cross_entropy(logits, torch.tensor([[0.0, 1.0, 0.0, 0.0]]), ATTRIBUTES)
    expected = -torch.log_softmax(torch.tensor([0.0, 2.0, 0.0]), 0)[1] + torch.log1p(torch.exp(torch.tensor(-1.0)))
    torch.testing.assert_close(right, expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"widths": (8,)},
        {"widths": (8, 0)},
        {"attributes": ()},
        {"attributes": ("Male", "Male")},
        {"identity_share": 1.5},
        {"depth": 3},
    ],
)
def test_wrong_configs_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EditorConfig.model_validate(wrong)


def test_fresh_weights_depend_on_the_seed_alone_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    a, b, c = tiny_editor(7).tensors(), tiny_editor(7).tensors(), tiny_editor(8).tensors()
    assert torch.equal(before, torch.get_rng_state())
    assert all((a[name] == b[name]).all() for name in a)
    assert any((a[name] != c[name]).any() for name in a)
