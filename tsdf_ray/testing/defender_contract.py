"""What every defence must hold, as a test class: subclass it, say how your defence is made, and run pytest.

Needs hypothesis beside pytest.

class TestMine(DefenderContract):
    def make(self, epsilon: float) -> Defender:
        return Mine(MineConfig(epsilon=epsilon))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdf_ray.crew import SOLO, Crew, Seat
from tsdf_ray.defenders.base import DefenceState, Defender, Knowledge
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.testing.crews import in_crew
from tsdf_ray.testing.linear import BrightCells, LinearFamily, dark_photos_with_a_bright_cell
from tsdf_ray.testing.randomness import no_global_draws


class DefenderContract(ABC):
    """Budget, idempotence, independence of company and workers, named randomness, and hands off what it is lent."""

    epsilon: ClassVar[float] = 0.05
    company: ClassVar[float] = 0.0
    """Share of published values that may differ with the batch a photo came in (rounding of a network's sums)."""

    examples: ClassVar[int] = 10
    """Budgets and sizes that are tried, each with every dtype; fewer for a defence that takes long to learn."""

    @abstractmethod
    def make(self, epsilon: float) -> Defender:
        """A fresh instance of the defence under test."""

    def knowledge(self, run_seed: int = 5, round_: int = 1) -> Knowledge:
        """What the defence may know: two linear generators, the detector `bright`, and six photos of 32 px."""
        families = {"first": LinearFamily(), "second": LinearFamily((0.5, 2.0, 1.0), (1.0, 0.0, 2.0))}
        return Knowledge(
            run_seed,
            round_,
            {name: family.freeze() for name, family in families.items()},
            {"bright": BrightCells()},
            dark_photos_with_a_bright_cell(6),
        )

    def photos(self) -> FaceSet:
        """Photos to protect, other ones than those it learned on."""
        return dark_photos_with_a_bright_cell(5, seed=1)

    def test_learning_twice_gives_the_same_state(self) -> None:
        one, two = (self.make(self.epsilon).learn(self.knowledge()) for _ in range(2))
        assert set(one.tensors) == set(two.tensors)
        for name, value in one.tensors.items():
            np.testing.assert_array_equal(value, two.tensors[name], err_msg=name)

    def test_the_state_is_plain_arrays(self) -> None:
        for name, value in self.make(self.epsilon).learn(self.knowledge()).tensors.items():
            assert isinstance(value, np.ndarray), name
            assert value.dtype == np.float32 or value.dtype.kind in "iu", f"{name} is {value.dtype}"
            assert np.isfinite(value).all(), name

    def test_a_fresh_instance_continues_from_a_stored_state(self) -> None:
        defender = self.make(self.epsilon)
        learned = defender.learn(self.knowledge())
        stored = {name: value.copy() for name, value in learned.tensors.items()}
        for value in stored.values():
            value.flags.writeable = False  # as arrays out of an object store are
        photos = self.photos()
        expected = defender.perturb(learned, photos)
        again = self.make(self.epsilon).perturb(DefenceState(self.knowledge(), stored), photos)
        torch.testing.assert_close(again, expected, rtol=0, atol=0)

    def test_published_photos_stay_inside_the_budget(self) -> None:
        defender, photos = self.make(self.epsilon), self.photos()
        published = defender.protect(defender.learn(self.knowledge()), photos)
        assert published.ids == photos.ids
        moved = np.abs(published.pixels_BCHW.astype(int) - photos.pixels_BCHW.astype(int))
        assert moved.max() <= int(self.epsilon * 127.5 * (1 + 1e-6))

    def test_any_budget_size_and_dtype_is_kept(self) -> None:
        """On the 8-bit grid, whatever epsilon (some are just below a whole step), side, and dtype `apply` returns."""

        @settings(max_examples=self.examples, deadline=None, database=None)
        @given(
            epsilon=st.floats(0, 1) | st.integers(1, 127).map(lambda k: 0.999 * k / 127.5), size=st.integers(64, 256)
        )
        def check(epsilon: float, size: int) -> None:
            defender, photos = self.make(epsilon), dark_photos_with_a_bright_cell(2, size, seed=1)
            knowledge = replace(self.knowledge(), photos=dark_photos_with_a_bright_cell(2, size))
            state = defender.learn(knowledge)
            raw = defender.apply(state, photos).detach()
            for dtype in (raw.dtype, torch.float16, torch.bfloat16, torch.float32, torch.float64):
                given_out = (1 if dtype == raw.dtype else 3) * raw.to(dtype)
                with patch.object(defender, "apply", lambda *_, out=given_out: out):
                    published = defender.protect(state, photos)
                assert published.pixels_BCHW.dtype == np.uint8
                assert published.pixels_BCHW.shape == photos.pixels_BCHW.shape
                moved = np.abs(published.pixels_BCHW.astype(int) - photos.pixels_BCHW.astype(int))
                assert moved.max() / 127.5 <= epsilon * (1 + 2e-6), f"outside the budget: {epsilon}, {size} px, {dtype}"

        check()

    def test_epsilon_zero_publishes_the_photo_itself(self) -> None:
        defender, photos = self.make(0.0), self.photos()
        published = defender.protect(defender.learn(self.knowledge()), photos)
        np.testing.assert_array_equal(published.pixels_BCHW, photos.pixels_BCHW)

    def test_a_photo_does_not_depend_on_its_company(self) -> None:
        defender, photos = self.make(self.epsilon), self.photos()
        state = defender.learn(self.knowledge())
        together = defender.protect(state, photos).pixels_BCHW
        order = [3, 1, 4, 0, 2]
        for part in (order[:1], order[1:3], order[3:]):
            apart = defender.protect(state, photos.take(part)).pixels_BCHW
            assert (apart != together[part]).mean() <= self.company

    def test_workers_of_a_crew_publish_what_one_does(self) -> None:
        """Two workers share the work, or each does all of it; micro-batches of 2."""
        photos = self.photos()

        def publish(crew: Crew) -> npt.NDArray[np.uint8]:
            defender, knowledge = self.make(self.epsilon), replace(self.knowledge(), seat=Seat(crew), micro_batch=2)
            return defender.protect(defender.learn(knowledge), photos).pixels_BCHW

        alone = publish(SOLO)
        for rank, published in enumerate(in_crew(2, publish)):
            np.testing.assert_array_equal(published, alone, err_msg=f"worker {rank}")

    def test_rounds_and_seeds_are_played_on_their_own(self) -> None:
        """The same round of the same seed gives the same photos whatever was drawn before, and global state is left."""
        defender, photos = self.make(self.epsilon), self.photos()
        published = []
        for seed in (1, 2):
            with no_global_draws(seed):
                published.append(defender.protect(defender.learn(self.knowledge()), photos).pixels_BCHW)
        np.testing.assert_array_equal(published[0], published[1])

    def test_what_it_is_lent_is_left_as_it_was(self) -> None:
        knowledge, photos = self.knowledge(), self.photos()
        digests = knowledge.photos.digest, photos.digest
        weights = {name: family.tensors() for name, family in knowledge.generators.items()}
        defender = self.make(self.epsilon)
        defender.protect(defender.learn(knowledge), photos)
        assert (_again(knowledge.photos).digest, _again(photos).digest) == digests
        for name, family in knowledge.generators.items():
            for key, value in family.tensors().items():
                np.testing.assert_array_equal(value, weights[name][key], err_msg=key)
            for module in family.parts.values():
                assert all(parameter.grad is None for parameter in module.parameters()), name


def _again(photos: FaceSet) -> FaceSet:
    # A digest is cached on its set: a fresh set over the same arrays computes it anew.
    return photos.with_pixels(photos.pixels_BCHW)
