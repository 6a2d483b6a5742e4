"""Each test of the attackers' contract fails for an attacker that breaks what it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from tsdf_ray.attackers import Attacker, AttackerConfig, Prepared, RetrainConfig, Retrained, Studied, Work
from tsdf_ray.attackers.retrain import pool_of, retrain
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators import Family
from tsdf_ray.testing.attacker_contract import TINY_TRAINING, AttackerContract


class ChangesThePreparation(Attacker):
    def prepare(self, round: int, published: FaceSet, studied: Studied) -> Prepared:
        return self.change(super().prepare(round, published, studied))

    def change(self, prepared: Prepared) -> Prepared:
        raise NotImplementedError


class ChangesTheResult(Attacker):
    def retrain(self, round: int, pool: Sequence[FaceSet], family: Family) -> Retrained:
        return self.change(super().retrain(round, pool, family), family)

    def change(self, after: Retrained, family: Family) -> Retrained:
        raise NotImplementedError


class LearnsBetweenCalls(ChangesTheResult):
    calls = 0

    def change(self, after: Retrained, family: Family) -> Retrained:
        self.calls += 1
        return replace(after, tensors={name: value + self.calls for name, value in after.tensors.items()})


class Hoards(Attacker):
    """Trains on whatever it was ever shown."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.seen: dict[str, FaceSet] = {}

    def prepare(self, round: int, published: FaceSet, studied: Studied) -> Prepared:
        prepared = super().prepare(round, published, studied)
        self.seen[prepared.photos.digest] = prepared.photos
        return prepared

    def retrain(self, round: int, pool: Sequence[FaceSet], family: Family) -> Retrained:
        return super().retrain(round, list(self.seen.values()) or pool, family)


class DrawsByRank(Attacker):
    def retrain(self, round: int, pool: Sequence[FaceSet], family: Family) -> Retrained:
        return super().retrain(round + self._seat.crew.rank, pool, family)


class DrawsGlobally(ChangesThePreparation):
    def change(self, prepared: Prepared) -> Prepared:
        return replace(prepared, scores_N=prepared.scores_N * np.float32(np.random.random()))


class DrawsInSecret(ChangesThePreparation):
    def change(self, prepared: Prepared) -> Prepared:
        with torch.random.fork_rng(devices=[]):
            return replace(prepared, scores_N=prepared.scores_N * torch.rand(1).numpy())


class DrawsAlikeInAllRounds(Attacker):
    def retrain(self, round: int, pool: Sequence[FaceSet], family: Family) -> Retrained:
        return super().retrain(0, pool, family)


class WritesIntoThePool(Attacker):
    def retrain(self, round: int, pool: Sequence[FaceSet], family: Family) -> Retrained:
        for photos in pool:
            photos.pixels_BCHW[:] = photos.pixels_BCHW[..., ::-1].copy()
        return super().retrain(round, pool, family)


class WritesIntoWhatItFitted(Attacker):
    def prepare(self, round: int, published: FaceSet, studied: Studied) -> Prepared:
        for part in studied.fitted.values():
            for value in part.values():
                value[...] = 0
        return super().prepare(round, published, studied)


class TrainsOnItsOwn(ChangesThePreparation):
    """Adds its own clean photos to those it collected."""

    def study(self, round: int, own: FaceSet, published: FaceSet) -> Studied:
        self.own = own
        return super().study(round, own, published)

    def change(self, prepared: Prepared) -> Prepared:
        photos = pool_of([prepared.photos, self.own])
        return replace(prepared, photos=photos, used_U=np.arange(len(photos)))


class Relabels(ChangesThePreparation):
    def change(self, prepared: Prepared) -> Prepared:
        photos = prepared.photos
        return replace(prepared, photos=replace(photos, labels_BA=1 - photos.labels_BA))


class Reorders(ChangesThePreparation):
    def change(self, prepared: Prepared) -> Prepared:
        photos = prepared.photos.take(range(len(prepared.photos))[::-1])
        return replace(prepared, photos=photos, used_U=prepared.used_U[::-1])


class FindsWithoutABox(ChangesThePreparation):
    def change(self, prepared: Prepared) -> Prepared:
        return replace(prepared, has_box_N=np.zeros_like(prepared.has_box_N))


class ShrinksPhotos(ChangesThePreparation):
    def change(self, prepared: Prepared) -> Prepared:
        photos = prepared.photos
        return replace(prepared, photos=photos.with_pixels(photos.pixels_BCHW[..., ::2, ::2]))


class LosesATensor(ChangesTheResult):
    def change(self, after: Retrained, family: Family) -> Retrained:
        return replace(after, tensors={n: v for n, v in after.tensors.items() if not n.startswith("discriminator.")})


class Diverges(ChangesTheResult):
    def change(self, after: Retrained, family: Family) -> Retrained:
        return replace(after, tensors={n: v * np.float32(np.inf) for n, v in after.tensors.items()})


class LendsItsWeights(ChangesTheResult):
    def change(self, after: Retrained, family: Family) -> Retrained:
        own = {f"{p}.{n}": v.detach().numpy() for p, m in family.parts.items() for n, v in m.state_dict().items()}
        return replace(after, tensors=own)


class TrainsFrozenParts(ChangesTheResult):
    def change(self, after: Retrained, family: Family) -> Retrained:
        return replace(
            after, tensors={n: v + 1 if n.startswith("classifier.") else v for n, v in after.tensors.items()}
        )


class KeepsNoSnapshot(ChangesTheResult):
    def change(self, after: Retrained, family: Family) -> Retrained:
        return replace(after, snapshots={})


class KeepsTheEndAlone(ChangesTheResult):
    def change(self, after: Retrained, family: Family) -> Retrained:
        end = family.tensors(("generator",))
        return replace(after, snapshots=dict.fromkeys(after.snapshots, end))


class Stubborn(Attacker):
    """Trains whatever `retrain.mode` says."""

    def retrain(self, round: int, pool: Sequence[FaceSet], family: Family) -> Retrained:
        config = RetrainConfig.model_validate({"train": TINY_TRAINING})
        return retrain(config, family, pool_of(pool), self._run_seed, (round,), self._decay)


class WithoutAReason(ChangesTheResult):
    def change(self, after: Retrained, family: Family) -> Retrained:
        return replace(after, reason=None)


class ForgetsThePool(Attacker):
    def retrain(self, round: int, pool: Sequence[FaceSet], family: Family) -> Retrained:
        return super().retrain(round, pool[-1:], family)


class TellsNoWork(ChangesTheResult):
    def change(self, after: Retrained, family: Family) -> Retrained:
        return replace(after, work=())


class TellsWorkOnNothing(ChangesThePreparation):
    def change(self, prepared: Prepared) -> Prepared:
        return replace(prepared, work=(Work("detect", 0, 0.0),))


class Unnamed(Attacker):
    name: ClassVar[str] = "unnamed"


CASES = [
    (LearnsBetweenCalls, "test_a_step_issued_twice_gives_the_same", "the second retraining"),
    (Hoards, "test_earlier_rounds_leave_nothing_behind", "the second retraining"),
    (DrawsByRank, "test_workers_find_what_one_finds", "the second retraining"),
    (DrawsGlobally, "test_no_global_generator_is_used", "the global generator was used (numpy)"),
    (DrawsInSecret, "test_no_global_generator_is_used", "scores_N"),
    (DrawsAlikeInAllRounds, "test_rounds_and_seeds_draw_differently", "a draw is named alike"),
    (WritesIntoThePool, "test_what_it_is_lent_is_left_as_it_was", "the prepared photos were changed"),
    (WritesIntoWhatItFitted, "test_what_it_is_lent_is_left_as_it_was", "what was fitted"),
    (TrainsOnItsOwn, "test_the_yield_is_sound", ""),
    (Relabels, "test_the_yield_is_sound", "not equal"),
    (Reorders, "test_the_yield_is_sound", "does not rise"),
    (FindsWithoutABox, "test_the_yield_is_sound", "without a box"),
    (ShrinksPhotos, "test_the_yield_is_sound", ""),
    (LosesATensor, "test_the_new_generator_is_sound", "other tensors"),
    (Diverges, "test_the_new_generator_is_sound", "not finite"),
    (LendsItsWeights, "test_the_new_generator_is_sound", "is no copy"),
    (TrainsFrozenParts, "test_the_new_generator_is_sound", "is frozen"),
    (KeepsNoSnapshot, "test_snapshots_are_kept_at_the_shares", ""),
    (KeepsTheEndAlone, "test_snapshots_are_kept_at_the_shares", "the start or the end"),
    (Stubborn, "test_a_generator_that_stays_says_why", ""),
    (WithoutAReason, "test_a_generator_that_stays_says_why", "no reason"),
    (ForgetsThePool, "test_all_collected_rounds_are_one_pool", "no difference"),
    (TellsNoWork, "test_work_is_told", "the retraining's work is not told"),
    (TellsWorkOnNothing, "test_work_is_told", "detect"),
    (Unnamed, "test_its_config_names_it", "unnamed"),
]


def contract(kind: type[Attacker]) -> AttackerContract:
    class Contract(AttackerContract):
        attacker = kind

        def config(self) -> AttackerConfig:
            return AttackerConfig.model_validate(
                {
                    "prepare": {"detectors": ["bright"], "crop": "box"},
                    "purify": {"prepare": [{"kind": "subtract"}]},
                    "retrain": {"train": TINY_TRAINING},
                }
            )

    return Contract()


@pytest.mark.parametrize(("kind", "name", "words"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_it_is_caught(caught: Callable[..., str], kind: type[Attacker], name: str, words: str) -> None:
    assert words in caught(contract(Attacker), contract(kind), name)


def test_every_test_of_the_contract_can_fail() -> None:
    assert {name for _, name, _ in CASES} == {name for name in dir(AttackerContract) if name.startswith("test_")}
