"""What every attacker must hold, as a test class: subclass it, name yours and a config, and run pytest.

class TestMine(AttackerContract):
    attacker = Mine

    def config(self) -> AttackerConfig:
        return MineConfig.model_validate({"kind": "mine", "retrain": {"train": TINY_TRAINING}})
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from tsdf_ray.attackers import Attacker, AttackerConfig, Prepared, RetrainConfig, Retrained, Studied, Work
from tsdf_ray.crew import Crew, Seat
from tsdf_ray.detectors.base import Detector
from tsdf_ray.digest import array_digest
from tsdf_ray.faces.faceset import FaceSet
from tsdf_ray.generators.base import Family
from tsdf_ray.testing.crews import in_crew
from tsdf_ray.testing.linear import BrightCells, dark_photos_with_a_bright_cell
from tsdf_ray.testing.randomness import no_global_draws
from tsdf_ray.testing.tiny import tiny_editor

TINY_TRAINING: Mapping[str, object] = {"steps": 4, "batch": 4, "learning_rate": 0.01, "precision": "float32"}
"""A training of milliseconds, for `retrain.train` of a config under test."""


class AttackerContract(ABC):
    """Idempotence, named randomness, sound yields and weights, work told, and no use of photos it did not collect."""

    attacker: ClassVar[type[Attacker]] = Attacker
    decay: ClassVar[tuple[float, ...]] = (0.0, 0.25, 0.5, 1.0)
    """Shares of the retraining after which a snapshot is wanted."""

    @abstractmethod
    def config(self) -> AttackerConfig:
        """Its config; quick (`TINY_TRAINING`), with at most 8 photos per batch. The detector `bright` may be named."""

    def make(self, run_seed: int = 5, config: AttackerConfig | None = None) -> Attacker:
        """A fresh instance of the attacker under test."""
        return self.attacker(config or self.config(), run_seed, self.detectors(), self.decay)

    def detectors(self) -> dict[str, Detector]:
        """The detectors its config may name."""
        return {"bright": BrightCells().eval()}

    def family(self) -> Family:
        """G_{r-1}, all parts; equal weights for every call."""
        return tiny_editor(0)

    def published(self, seed: int = 1, count: int = 12) -> FaceSet:
        """What it collects in a round: photos of 32 px with a bright cell, but for the last two, which have none."""
        photos = dark_photos_with_a_bright_cell(count, seed=seed)
        pixels = photos.pixels_BCHW.copy()
        pixels[-2:] = np.minimum(pixels[-2:], 60)
        ids = tuple(f"{name}-of-{seed}" for name in photos.ids)
        return _locked(FaceSet(pixels, photos.labels_BA, photos.attributes, ids))

    def own(self) -> FaceSet:
        """Clean photos of its own, as many as `collect.own` says; never published."""
        return self.published(9, max(2, self.config().collect.own))

    def play(self, attacker: Attacker, round: int = 1) -> tuple[Studied, Prepared, Retrained]:
        """One round's three steps."""
        published = self.published()
        studied = attacker.study(round, self.own(), published)
        prepared = attacker.prepare(round, published, studied)
        return studied, prepared, attacker.retrain(round, [prepared.photos], self.family())

    def test_a_step_issued_twice_gives_the_same(self) -> None:
        """By a fresh instance, and again by one that has played."""
        first = self.make()
        once = self.play(first)
        for again in (self.play(self.make()), self.play(first)):
            _same(once, again)

    def test_earlier_rounds_leave_nothing_behind(self) -> None:
        """What was seen, but not collected in this round, teaches the generator nothing."""
        fresh, seasoned = self.make(), self.make()
        other = self.published(2)
        seen = seasoned.prepare(1, other, seasoned.study(1, self.own(), other))
        seasoned.retrain(1, [seen.photos], self.family())
        _same(self.play(fresh, 2), self.play(seasoned, 2))

    def test_workers_find_what_one_finds(self) -> None:
        """Two workers that run every step together, on micro-batches of three photos, each end with the same."""
        families = [self.family() for _ in range(3)]

        def play(crew: Crew) -> tuple[Studied, Prepared, Retrained]:
            attacker = self.attacker(self.config(), 5, self.detectors(), self.decay, Seat(crew), 3)
            studied = attacker.study(1, self.own(), self.published())
            prepared = attacker.prepare(1, self.published(), studied)
            return studied, prepared, attacker.retrain(1, [prepared.photos], families.pop())

        alone, *both = in_crew(1, play) + in_crew(2, play)
        for worker in both:
            _same(alone, worker)
            assert (worker[2].losses, worker[2].protected) == (alone[2].losses, alone[2].protected)

    def test_no_global_generator_is_used(self) -> None:
        attacker, played = self.make(), []
        for seed in (1, 2):
            family, published, own = self.family(), self.published(), self.own()
            with no_global_draws(seed):
                studied = attacker.study(1, own, published)
                prepared = attacker.prepare(1, published, studied)
                played.append((studied, prepared, attacker.retrain(1, [prepared.photos], family)))
        _same(*played)

    def test_rounds_and_seeds_draw_differently(self) -> None:
        played = [self.play(self.make(seed), round)[2] for seed, round in ((5, 1), (5, 2), (6, 1))]
        if all(retrained.steps for retrained in played):
            assert len({array_digest(retrained.tensors) for retrained in played}) == 3, "a draw is named alike"

    def test_what_it_is_lent_is_left_as_it_was(self) -> None:
        attacker, published, own = self.make(), self.published(), self.own()
        digests = published.digest, own.digest
        studied = attacker.study(1, own, published)
        fitted = _digest(studied)
        prepared = attacker.prepare(1, published, studied)
        usable = prepared.photos.digest
        attacker.retrain(1, [prepared.photos], self.family())
        assert (_again(published).digest, _again(own).digest) == digests, "the photos were changed"
        assert _digest(studied) == fitted, "what was fitted was changed"
        assert _again(prepared.photos).digest == usable, "the prepared photos were changed"

    def test_the_yield_is_sound(self) -> None:
        """Usable photos are collected ones, in their order, with their labels and size; finds and boxes agree."""
        published = self.published()
        _, prepared, _ = self.play(self.make())
        n, used_U, photos = len(published), prepared.used_U, prepared.photos
        assert len(photos) > 0, "nothing is usable: the contract needs photos to retrain on"
        assert len(photos) == len(used_U)
        assert used_U.dtype.kind == "i"
        assert bool((np.diff(used_U) > 0).all()), "used_U does not rise"
        assert used_U.min() >= 0
        assert used_U.max() < n
        assert photos.ids == tuple(published.ids[u] for u in used_U), "ids are not those of used_U"
        np.testing.assert_array_equal(photos.labels_BA, published.labels_BA[used_U])
        assert (photos.size, photos.attributes) == (published.size, published.attributes)
        found_N, has_box_N, boxes_N4 = prepared.found_N, prepared.has_box_N, prepared.boxes_N4
        assert found_N.shape == has_box_N.shape == prepared.scores_N.shape == (n,)
        assert boxes_N4.shape == (n, 4)
        assert found_N.dtype == has_box_N.dtype == np.bool_
        assert boxes_N4.dtype == prepared.scores_N.dtype == np.float32
        assert bool(np.isfinite(boxes_N4).all())
        assert bool(((prepared.scores_N >= 0) & (prepared.scores_N <= 1)).all())
        assert not bool((found_N & ~has_box_N).any()), "a face was found without a box"
        assert not bool(boxes_N4[~has_box_N].any()), "a box where there is none"
        assert not bool(prepared.scores_N[~found_N].any()), "a score where nothing was found"
        corners = boxes_N4[has_box_N]
        assert bool((corners[:, :2] < corners[:, 2:]).all()), "corners are not in order"

    def test_the_new_generator_is_sound(self) -> None:
        family = self.family()
        before = family.tensors()
        prepared = self.play(self.make())[1]
        after = self.make().retrain(1, [prepared.photos], family)
        kept = {name: value.copy() for name, value in after.tensors.items()}
        assert set(kept) == set(before), "other tensors than the family's"
        for name, value in kept.items():
            assert (value.shape, value.dtype) == (before[name].shape, before[name].dtype), name
            assert bool(np.isfinite(value).all()), f"{name} is not finite"
        for name in family.tensors(family.frozen_parts):
            np.testing.assert_array_equal(kept[name], before[name], err_msg=f"{name} is frozen")
        for module in family.parts.values():
            for value in module.state_dict().values():
                value.zero_()
        for name, value in after.tensors.items():
            np.testing.assert_array_equal(value, kept[name], err_msg=f"{name} is no copy: it changes with the family")

    def test_snapshots_are_kept_at_the_shares(self) -> None:
        """Of the part `generator`, at each share between 0 and 1, on the way from the old weights to the new."""
        before = self.family().tensors(("generator",))
        after = self.play(self.make())[2]
        if not after.steps:
            assert not after.snapshots, "snapshots of a retraining that was not made"
            return
        assert sorted(after.snapshots) == [share for share in self.decay if 0 < share < 1]
        for share, tensors in after.snapshots.items():
            assert set(tensors) == set(before), share
            assert all(bool(np.isfinite(value).all()) for value in tensors.values()), share
            if 0 < after.step_at(share) < after.steps:
                end = {name: after.tensors[name] for name in before}
                assert array_digest(tensors) not in {array_digest(before), array_digest(end)}, (
                    f"the snapshot at {share} is the start or the end"
                )

    def test_a_generator_that_stays_says_why(self) -> None:
        config = self.config().model_copy(update={"retrain": RetrainConfig(mode="none")})
        nothing, some = self.published().take([]), self.published()
        for attacker, photos in ((self.make(), nothing), (self.make(config=config), some)):
            before = self.family().tensors()
            after = attacker.retrain(1, [photos], self.family())
            assert after.steps == 0
            assert after.reason, "no reason is given"
            assert not after.snapshots
            assert array_digest(after.tensors) == array_digest(before), "the weights moved"

    def test_all_collected_rounds_are_one_pool(self) -> None:
        one, two = (self.published(seed) for seed in (1, 2))
        both = self.make().retrain(2, [one, two], self.family())
        assert both.steps == 0 or array_digest(both.tensors) != array_digest(
            self.make().retrain(2, [two], self.family()).tensors
        ), "the earlier round's photos make no difference"

    def test_work_is_told(self) -> None:
        studied, prepared, after = self.play(self.make())
        done: tuple[Work, ...] = (*studied.work, *prepared.work, *after.work)
        for work in done:
            assert work.what
            assert work.photos > 0, work
            assert work.seconds >= 0, work
        if after.steps:
            assert after.photos > 0, "photos seen are not counted"
            assert 0 <= after.protected <= after.photos
            assert sum(work.photos for work in after.work) >= after.photos, "the retraining's work is not told"
            assert sum(work.seconds for work in after.work) > 0
            assert after.losses, "no loss is told"
            assert all(np.isfinite(value) for value in after.losses.values())
        if self.config().prepare.detectors:
            assert prepared.work, "the preparation's work is not told"

    def test_its_config_names_it(self) -> None:
        """A scenario travels as JSON; the config's `kind` is what finds the class again."""
        config = self.config()
        assert isinstance(config, self.attacker.config_class)
        assert config.kind == self.attacker.name
        again = self.attacker.config_class.model_validate_json(config.model_dump_json())
        assert again == config


def _locked(photos: FaceSet) -> FaceSet:
    for array in (photos.pixels_BCHW, photos.labels_BA):
        array.flags.writeable = False  # as arrays out of an object store are
    return photos


def _again(photos: FaceSet) -> FaceSet:
    # A digest is cached on its set: a fresh set over the same arrays computes it anew.
    return photos.with_pixels(photos.pixels_BCHW)


def _digest(studied: Studied) -> str:
    return array_digest({f"{key} {name}": v for key, part in studied.fitted.items() for name, v in part.items()})


def _same(one: tuple[Studied, Prepared, Retrained], two: tuple[Studied, Prepared, Retrained]) -> None:
    assert _digest(one[0]) == _digest(two[0]), "the second study gave something else"
    assert one[1].photos.digest == two[1].photos.digest, "the second preparation gave something else"
    for name in ("used_U", "found_N", "has_box_N", "boxes_N4", "scores_N"):
        np.testing.assert_array_equal(getattr(one[1], name), getattr(two[1], name), err_msg=name)
    assert array_digest(one[2].tensors) == array_digest(two[2].tensors), "the second retraining gave something else"
    snapshots = [{share: array_digest(part) for share, part in each.snapshots.items()} for each in (one[2], two[2])]
    assert snapshots[0] == snapshots[1], "other snapshots the second time"
