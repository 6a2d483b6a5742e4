"""Each test of the defenders' contract fails for a defence that breaks what it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import torch

from tsdf_ray.defenders import DefenceState, Defender, DefenderConfig, Knowledge
from tsdf_ray.faces import FaceSet
from tsdf_ray.randomness import torch_rng
from tsdf_ray.testing.defender_contract import DefenderContract


class Sound(Defender):
    """One random w per round, three times as large as allowed."""

    name: ClassVar[str] = "sound"
    config_class: ClassVar[type[DefenderConfig]] = DefenderConfig

    def learn(self, knowledge: Knowledge) -> DefenceState:
        rng = torch_rng(knowledge.run_seed, knowledge.round, "defender", "sound")
        return DefenceState(knowledge, {"w": self.draw(knowledge.photos.size, rng)})

    def draw(self, size: int, rng: torch.Generator | None) -> np.ndarray:
        w = torch.rand(1, 3, size, size, generator=rng) * 2 - 1
        return (3 * self.config.epsilon * w).numpy()

    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        return torch.tensor(state.tensors["w"])


class DrawsGlobally(Sound):
    def draw(self, size: int, rng: torch.Generator | None) -> np.ndarray:
        return super().draw(size, None)


class StoresDoubles(Sound):
    def draw(self, size: int, rng: torch.Generator | None) -> np.ndarray:
        return super().draw(size, rng).astype(np.float64)


class StoresNan(Sound):
    def learn(self, knowledge: Knowledge) -> DefenceState:
        state = super().learn(knowledge)
        return DefenceState(knowledge, {**state.tensors, "unused": np.full(1, np.nan, np.float32)})


class KeepsItToItself(Sound):
    kept = 0.0

    def learn(self, knowledge: Knowledge) -> DefenceState:
        self.kept = self.config.epsilon
        return super().learn(knowledge)

    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        return super().apply(state, photos) * 0 + self.kept


class Overspends(Sound):
    def protect(self, state: DefenceState, photos: FaceSet) -> FaceSet:  # type: ignore[misc]
        # One step of the grid more than was allowed.
        pixels = super().protect(state, photos).pixels_BCHW.astype(int)
        return photos.with_pixels((pixels + np.sign(pixels - photos.pixels_BCHW)).clip(0, 255).astype(np.uint8))


class RoundsToNearest(Sound):
    """Inside the budget for epsilon 0.05 (6.375 steps), outside for 0.052 (6.63)."""

    def perturb(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:  # type: ignore[misc]
        epsilon = self.config.epsilon
        return (self.apply(state, photos).float().clamp(-epsilon, epsilon) * 127.5).round() / 127.5


class BudgetsInTheDtypeItGot(Sound):
    """Truncates, but in float16 or bfloat16, where epsilon itself may be rounded up."""

    def perturb(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:  # type: ignore[misc]
        raw, epsilon = self.apply(state, photos), self.config.epsilon
        return torch.trunc(raw.clamp(-epsilon, epsilon) * 127.5).float() / 127.5


class ActsAtEpsilonZero(Sound):
    def perturb(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:  # type: ignore[misc]
        return super().perturb(state, photos) + (1 / 127.5 if self.config.epsilon == 0 else 0)


class LooksAtTheOthers(Sound):
    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        return super().apply(state, photos) * (len(photos) % 3)


class CountsItsPhotos(LooksAtTheOthers):
    @property
    def batch_per_image(self) -> int:
        return 1


class WritesIntoPhotos(Sound):
    def apply(self, state: DefenceState, photos: FaceSet) -> torch.Tensor:
        photos.pixels_BCHW[:] //= 2
        return super().apply(state, photos)


class TrainsTheGenerator(Sound):
    def learn(self, knowledge: Knowledge) -> DefenceState:
        family, photos = knowledge.generators["first"], knowledge.photos
        family.parts["generator"].requires_grad_(True)
        family.edit(photos.images(), photos.labels()).sum().backward()  # type: ignore[no-untyped-call]
        return super().learn(knowledge)


CASES = [
    (DrawsGlobally, "test_learning_twice_gives_the_same_state", "w"),
    (StoresDoubles, "test_the_state_is_plain_arrays", "float64"),
    (StoresNan, "test_the_state_is_plain_arrays", "unused"),
    (KeepsItToItself, "test_a_fresh_instance_continues_from_a_stored_state", "not equal"),
    (Overspends, "test_published_photos_stay_inside_the_budget", ""),
    (Overspends, "test_any_budget_size_and_dtype_is_kept", "outside the budget"),
    (RoundsToNearest, "test_any_budget_size_and_dtype_is_kept", "outside the budget"),
    (BudgetsInTheDtypeItGot, "test_any_budget_size_and_dtype_is_kept", "outside the budget"),
    (ActsAtEpsilonZero, "test_epsilon_zero_publishes_the_photo_itself", ""),
    (LooksAtTheOthers, "test_a_photo_does_not_depend_on_its_company", ""),
    (CountsItsPhotos, "test_workers_of_a_crew_publish_what_one_does", "worker"),
    (DrawsGlobally, "test_rounds_and_seeds_are_played_on_their_own", "the global generator was used"),
    (WritesIntoPhotos, "test_what_it_is_lent_is_left_as_it_was", ""),
    (TrainsTheGenerator, "test_what_it_is_lent_is_left_as_it_was", "first"),
]


def contract(kind: type[Defender]) -> DefenderContract:
    class Contract(DefenderContract):
        examples = 60

        def make(self, epsilon: float) -> Defender:
            return kind(DefenderConfig(epsilon=epsilon))

    return Contract()


@pytest.mark.parametrize(("kind", "name", "words"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_it_is_caught(caught: Callable[..., str], kind: type[Defender], name: str, words: str) -> None:
    assert words in caught(contract(Sound), contract(kind), name)


def test_every_test_of_the_contract_can_fail() -> None:
    assert {name for _, name, _ in CASES} == {name for name in dir(DefenderContract) if name.startswith("test_")}
