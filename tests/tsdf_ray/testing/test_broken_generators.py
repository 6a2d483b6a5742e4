"""Each test of the generators' contract fails for a family that breaks what it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tsdf_ray.generators import Editor, EditorConfig, Family, fresh_family
from tsdf_ray.testing.generator_contract import GeneratorContract

Terms = dict[str, torch.Tensor]
Both = tuple[torch.Tensor, torch.Tensor]


class Sound(Editor):
    """The light editor, small."""


class LeavesTheRange(Sound):
    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> Both:
        edited, mid = super().edit_and_features(x_BCHW, c_BA)
        return 1.1 * edited, mid


class DividesByZero(Sound):
    """NaN where a photo is white all over."""

    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> Both:
        edited, mid = super().edit_and_features(x_BCHW, c_BA)
        rest = 1 - x_BCHW
        return edited * (rest / rest), mid


class WritesIntoPhotos(Sound):
    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> Both:
        with torch.no_grad():
            x_BCHW.clamp_(-0.5, 0.5)
        return super().edit_and_features(x_BCHW, c_BA)


class OtherFeaturesAlone(Sound):
    def features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return 2 * super().features(x_BCHW, c_BA)


class WholePassForFeatures(Sound):
    def features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return self.edit_and_features(x_BCHW, c_BA)[1]


class NoGradient(Sound):
    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return super().edit(x_BCHW, c_BA).detach()


class BlindToOnePhoto(Sound):
    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> Both:
        edited, mid = super().edit_and_features(x_BCHW, c_BA)
        return torch.cat([edited[:1].detach(), edited[1:]]), mid


class StaysTrainable(Sound):
    def freeze(self) -> Family:
        for module in self.parts.values():
            module.eval()
        return self


class StaysInTrainingMode(Sound):
    def freeze(self) -> Family:
        for module in self.parts.values():
            module.requires_grad_(False)
        return self


class LooksAtTheOthers(Sound):
    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> Both:
        return super().edit_and_features(x_BCHW - 0.1 * x_BCHW.mean(0), c_BA)


class DeafToALabel(Sound):
    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> Both:
        heard = c_BA.clone()
        heard[:, self.attributes.index("Male")] = 0
        return super().edit_and_features(x_BCHW, heard)


class HalfUnderAutocast(Sound):
    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> Both:
        edited, mid = super().edit_and_features(x_BCHW, c_BA)
        return (edited.bfloat16(), mid.bfloat16()) if torch.is_autocast_enabled("cpu") else (edited, mid)


class CoarseUnderAutocast(Sound):
    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> Both:
        edited, mid = super().edit_and_features(x_BCHW, c_BA)
        return (edited * 0.5, mid) if torch.is_autocast_enabled("cpu") else (edited, mid)


class ChangesLosses(Sound):
    def discriminator_loss(self, x_BCHW: torch.Tensor, *args: Any, **more: Any) -> Terms:
        return self.change("d", super().discriminator_loss(x_BCHW, *args, **more), x_BCHW, *args, **more)

    def generator_loss(self, x_BCHW: torch.Tensor, *args: Any, **more: Any) -> Terms:
        return self.change("g", super().generator_loss(x_BCHW, *args, **more), x_BCHW, *args, **more)

    def change(
        self,
        step: str,
        terms: Terms,
        x_BCHW: torch.Tensor,
        own_BA: torch.Tensor,
        target_BA: torch.Tensor,
        rng: torch.Generator,
        fake_BCHW: torch.Tensor | None = None,
    ) -> Terms:
        raise NotImplementedError


class TrainsTheGeneratorTwice(ChangesLosses):
    def change(self, step: str, terms: Terms, *given: Any, **more: Any) -> Terms:
        x_BCHW, own_BA, *_ = given
        return terms | ({"d_edit": self.edit(x_BCHW, own_BA).mean()} if step == "d" else {})


class NotAScalar(ChangesLosses):
    def change(self, step: str, terms: Terms, *given: Any, **more: Any) -> Terms:
        return {name: term[None] for name, term in terms.items()}


class NanLoss(ChangesLosses):
    def change(self, step: str, terms: Terms, *given: Any, **more: Any) -> Terms:
        return {name: term * float("nan") for name, term in terms.items()}


class LossWithoutGenerator(ChangesLosses):
    def change(self, step: str, terms: Terms, *given: Any, **more: Any) -> Terms:
        return {name: term.detach() + 0 * self.head() if step == "g" else term for name, term in terms.items()}

    def head(self) -> torch.Tensor:
        return self.generator.head.weight.sum()


class WeighsAGivenForgery(ChangesLosses):
    def change(self, step: str, terms: Terms, *given: Any, **more: Any) -> Terms:
        return {name: term * (1.5 if given[-1] is not None else 1.0) for name, term in terms.items()}


class CountsItsSteps(ChangesLosses):
    steps = 0

    def change(self, step: str, terms: Terms, *given: Any, **more: Any) -> Terms:
        self.steps += 1
        return {name: term * self.steps for name, term in terms.items()}


class RemembersPhotos(ChangesLosses):
    """Something that is neither a weight nor a buffer, and differs from worker to worker."""

    bias = 0.0

    def change(self, step: str, terms: Terms, *given: Any, **more: Any) -> Terms:
        self.bias += float(given[0].mean())
        return {name: term * (1 + self.bias) for name, term in terms.items()}


class TouchesAFrozenPart(ChangesLosses):
    def change(self, step: str, terms: Terms, *given: Any, **more: Any) -> Terms:
        if step == "d":
            with torch.no_grad():
                next(self.parts["classifier"].parameters()).add_(1.0)
        return terms


class HoldsAnUntrainedPart(Sound):
    def __init__(self, config: EditorConfig | None = None) -> None:
        super().__init__(config)
        self.frozen_parts = ()


class Noisy(Sound):
    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> Both:
        return super().edit_and_features(x_BCHW + 1e-3 * torch.randn_like(x_BCHW), c_BA)


class NoisyInSecret(Sound):
    """Draws from the global generator and puts it back."""

    def edit_and_features(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> Both:
        with torch.random.fork_rng(devices=[]):
            noise = 1e-3 * torch.randn_like(x_BCHW)
        return super().edit_and_features(x_BCHW + noise, c_BA)


class ForgetsItsConfig(Sound):
    def config_json(self) -> str:
        return EditorConfig().model_dump_json()


class HoldsAWeightOutsideItsParts(Sound):
    def __init__(self, config: EditorConfig | None = None) -> None:
        super().__init__(config)
        self.hidden = 0.9 + 0.1 * torch.rand(1)

    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return self.hidden * super().edit(x_BCHW, c_BA)


class StartsAlwaysAlike(Sound):
    def __init__(self, config: EditorConfig | None = None) -> None:
        torch.manual_seed(0)
        super().__init__(config)


class TakesAnySide(Sound):
    def check_side(self, side: int, key: str) -> None:
        pass


class PromisesTooSmallASide(Sound):
    """Its networks halve the side more often than it says."""

    def __init__(self, config: EditorConfig | None = None) -> None:
        super().__init__(config)
        self.side_multiple = 4

    def edit(self, x_BCHW: torch.Tensor, c_BA: torch.Tensor) -> torch.Tensor:
        return super().edit(x_BCHW, c_BA)[..., : x_BCHW.shape[-1] // 16 * 16]


CASES = [
    (LeavesTheRange, "test_an_edit_is_a_photo", "leaves [-1, 1]"),
    (DividesByZero, "test_an_edit_is_a_photo", ""),
    (WritesIntoPhotos, "test_an_edit_is_a_photo", "the photos were changed"),
    (OtherFeaturesAlone, "test_features_are_those_of_the_edit", ""),
    (WholePassForFeatures, "test_features_take_the_encoder_alone", "the decoder runs"),
    (NoGradient, "test_gradients_reach_every_photo", "edit has no gradient"),
    (BlindToOnePhoto, "test_gradients_reach_every_photo", "no gradient reaches a photo through edit"),
    (StaysTrainable, "test_a_frozen_family_gets_no_weight_gradient", "asks for a gradient"),
    (StaysInTrainingMode, "test_a_frozen_family_gets_no_weight_gradient", "generator"),
    (LooksAtTheOthers, "test_a_photo_does_not_depend_on_its_company", ""),
    (DeafToALabel, "test_every_label_has_its_effect", "Male changes nothing"),
    (HalfUnderAutocast, "test_edits_in_bfloat16_come_close", "float32 under autocast too"),
    (CoarseUnderAutocast, "test_edits_in_bfloat16_come_close", ""),
    (TrainsTheGeneratorTwice, "test_losses_are_for_their_own_part", "a discriminator step trains the generator"),
    (NotAScalar, "test_losses_are_for_their_own_part", "not a scalar"),
    (NanLoss, "test_losses_are_for_their_own_part", "not finite"),
    (LossWithoutGenerator, "test_losses_are_for_their_own_part", "does not reach the generator"),
    (WeighsAGivenForgery, "test_a_shared_forgery_gives_the_same_losses", "d_real"),
    (CountsItsSteps, "test_a_resumed_training_goes_on_as_the_unbroken_one", ""),
    (RemembersPhotos, "test_workers_share_a_training_and_agree_on_every_bit", "another generator than one"),
    (TouchesAFrozenPart, "test_training_changes_all_but_the_frozen_parts", "classifier changed"),
    (HoldsAnUntrainedPart, "test_training_changes_all_but_the_frozen_parts", "classifier did not change"),
    (Noisy, "test_no_global_generator_is_used", "the global generator was used"),
    (NoisyInSecret, "test_no_global_generator_is_used", ""),
    (ForgetsItsConfig, "test_config_and_tensors_build_it_again", ""),
    (HoldsAWeightOutsideItsParts, "test_config_and_tensors_build_it_again", ""),
    (HoldsAWeightOutsideItsParts, "test_what_is_saved_edits_alike", ""),
    (StartsAlwaysAlike, "test_a_restart_keeps_the_frozen_parts_alone", "generator"),
    (TakesAnySide, "test_sides_that_do_not_fit_are_refused", "DID NOT RAISE"),
    (PromisesTooSmallASide, "test_sides_that_do_not_fit_are_refused", "pass the check"),
]


def contract(kind: type[Editor]) -> GeneratorContract:
    config = EditorConfig(widths=(8, 8), blocks=1, discriminator_widths=(8, 8, 8), classifier_width=4)

    class Contract(GeneratorContract):
        def make(self) -> Family:
            return fresh_family(kind, config, 0, "broken")

    return Contract()


@pytest.mark.parametrize(("kind", "name", "words"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_it_is_caught(caught: Callable[..., str], kind: type[Editor], name: str, words: str) -> None:
    assert words in caught(contract(Sound), contract(kind), name)


def test_every_test_of_the_contract_can_fail() -> None:
    assert {name for _, name, _ in CASES} == {name for name in dir(GeneratorContract) if name.startswith("test_")}
