"""What every generator family must hold, as a test class: subclass it, say how a small one is made, and run pytest.

class TestMine(GeneratorContract):
    def make(self) -> Family:
        return fresh_family(Mine, MineConfig(width=4), 0, "test")
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from tsdf_ray.crew import Crew
from tsdf_ray.digest import array_digest
from tsdf_ray.errors import UserError
from tsdf_ray.faces.edits import draw_edits
from tsdf_ray.faces.faceset import HAIR, FaceSet
from tsdf_ray.generators import GENERATORS, Family, Tensors, TrainConfig, Trainer, load_family, restart, save_family
from tsdf_ray.testing.crews import in_crew
from tsdf_ray.testing.randomness import no_global_draws
from tsdf_ray.testing.tiny import TINY_SIZE, tiny_faces


class GeneratorContract(ABC):
    """Edits and features of photos, gradients, losses of their own parts, exact resume, files, named randomness."""

    bounded: ClassVar[bool] = True
    """Whether every edit lies in [-1, 1]; False for a last layer without a bound."""
    size: ClassVar[int] = TINY_SIZE
    """Side of the photos, in pixels."""

    @abstractmethod
    def make(self) -> Family:
        """A fresh instance of the family under test, small: milliseconds per pass. Equal weights for every call."""

    def photos(self) -> FaceSet:
        """Six photos with the family's labels: one hair colour each, the others alike in threes."""
        attributes, tiny = self.make().attributes, tiny_faces(6, size=self.size)
        hair = [a for a, name in enumerate(attributes) if name in HAIR]
        labels = np.zeros((len(tiny), len(attributes)), np.uint8)
        for photo in range(len(tiny)):
            labels[photo] = [int(photo >= 3 and name not in HAIR) for name in attributes]
            if hair:
                labels[photo, hair[photo % len(hair)]] = 1
        return FaceSet(tiny.pixels_BCHW, labels, attributes, tiny.ids)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`photos` as float32 [B, 3, S, S], and their labels [B, A]."""
        photos = self.photos()
        return photos.images(), photos.labels()

    def test_an_edit_is_a_photo(self) -> None:
        family, (x, c) = self.make().freeze(), self.batch()
        given = x.clone(), c.clone()
        for photos in (x, torch.ones_like(x), -torch.ones_like(x)):
            edited = family.edit(photos, c)
            assert (edited.shape, edited.dtype) == (photos.shape, torch.float32)
            assert bool(edited.isfinite().all())
            assert not self.bounded or float(edited.abs().max()) <= 1.0, "an edit leaves [-1, 1]"
        assert torch.equal(x, given[0]), "the photos were changed"
        assert torch.equal(c, given[1]), "the labels were changed"

    def test_features_are_those_of_the_edit(self) -> None:
        family, (x, c) = self.make().freeze(), self.batch()
        edited, mid = family.edit_and_features(x, c)
        assert (mid.ndim, len(mid), mid.dtype) == (4, len(x), torch.float32)
        torch.testing.assert_close(family.edit(x, c), edited)
        torch.testing.assert_close(family.features(x, c), mid)

    def test_features_take_the_encoder_alone(self) -> None:
        family, (x, c) = self.make().freeze(), self.batch()
        run: list[str] = []
        for name, module in family.parts["generator"].named_modules():
            if not list(module.children()):
                module.register_forward_hook(lambda *_, name=name: run.append(name))
        family.features(x, c)
        encoder = set(run)
        family.edit(x, c)
        # A family that calls no layer (all by hand) cannot be watched.
        assert not run or encoder < set(run), "the decoder runs for the features"

    def test_gradients_reach_every_photo(self) -> None:
        family, (x, c) = self.make().freeze(), self.batch()
        x.requires_grad_()
        for what, output in zip(("edit", "features"), family.edit_and_features(x, c), strict=True):
            assert output.requires_grad, f"{what} has no gradient"
            (slope,) = torch.autograd.grad(output.square().sum(), x, retain_graph=True)
            assert bool(slope.isfinite().all()), what
            assert bool((slope.abs().sum((1, 2, 3)) > 0).all()), f"no gradient reaches a photo through {what}"
        for what, output in (("edit", family.edit(x, c)), ("features", family.features(x, c))):
            assert output.requires_grad, f"{what} has no gradient"

    def test_a_frozen_family_gets_no_weight_gradient(self) -> None:
        family, (x, c) = self.make().freeze(), self.batch()
        edited, mid = family.edit_and_features(x.requires_grad_(), c)
        (edited.sum() + mid.sum()).backward()  # type: ignore[no-untyped-call]
        for part, module in family.parts.items():
            assert not module.training, part
            for name, weight in module.named_parameters():
                assert not weight.requires_grad, f"{part}.{name} asks for a gradient"
                assert weight.grad is None, f"{part}.{name} got a gradient"

    def test_a_photo_does_not_depend_on_its_company(self) -> None:
        family, (x, c) = self.make().freeze(), self.batch()
        edited, mid = family.edit_and_features(x, c)
        for part in ([4], [2, 0]):
            alone, own = family.edit_and_features(x[part], c[part])
            torch.testing.assert_close(alone, edited[part], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(own, mid[part], atol=1e-4, rtol=1e-4)

    def test_every_label_has_its_effect(self) -> None:
        family, (x, c) = self.make().freeze(), self.batch()
        edited = family.edit(x, c)
        for a, attribute in enumerate(family.attributes):
            if attribute not in HAIR:
                flipped = c.clone()
                flipped[:, a] = 1 - flipped[:, a]
                change = (family.edit(x, flipped) - edited).abs().amax((1, 2, 3))
                assert bool((change > 0).all()), f"{attribute} changes nothing"

    def test_edits_in_bfloat16_come_close(self) -> None:
        family, (x, c) = self.make().freeze(), self.batch()
        exact, own = family.edit_and_features(x, c)
        x.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            edited, mid = family.edit_and_features(x, c)
        assert (edited.dtype, mid.dtype) == (torch.float32, torch.float32), "results are float32 under autocast too"
        (slope,) = torch.autograd.grad(edited.square().sum() + mid.square().sum(), x)
        assert bool(slope.isfinite().all())
        for rough, wanted in ((edited, exact), (mid, own)):
            assert float((rough - wanted).detach().abs().mean()) <= 0.05 * float(wanted.abs().mean() + 0.01)

    def test_losses_are_for_their_own_part(self) -> None:
        """Finite scalars; a discriminator step leaves the generator alone, whoever made the forgery."""
        family, (x, own) = self.make(), self.batch()
        self._train_mode(family)
        target = draw_edits(own, family.attributes, torch.Generator().manual_seed(1))
        for given in (False, True) if family.shares_fake else (False,):
            fake = family.edit(x, target) if given else None
            rng = torch.Generator().manual_seed(2)
            for part, loss in (("discriminator", family.discriminator_loss), ("generator", family.generator_loss)):
                terms = loss(x, own, target, rng, fake)
                assert terms, f"no loss term for the {part}"
                for name, term in terms.items():
                    assert term.ndim == 0, f"{name} is not a scalar"
                    assert bool(term.isfinite()), f"{name} is not finite"
                touched = self._touched(family, torch.stack(list(terms.values())).sum())
                assert part in touched, f"the {part}'s loss does not reach the {part}"
                assert part == "generator" or "generator" not in touched, "a discriminator step trains the generator"

    def test_a_shared_forgery_gives_the_same_losses(self) -> None:
        family, (x, own) = self.make(), self.batch()
        if not family.shares_fake:
            pytest.skip("its losses make forgeries of their own")
        self._train_mode(family)
        target = draw_edits(own, family.attributes, torch.Generator().manual_seed(1))
        fake = family.edit(x, target)
        for loss in (family.discriminator_loss, family.generator_loss):
            terms = [loss(x, own, target, torch.Generator().manual_seed(2), given) for given in (None, fake)]
            assert terms[0].keys() == terms[1].keys()
            for name, term in terms[0].items():
                torch.testing.assert_close(term, terms[1][name], msg=name)

    def test_a_resumed_training_goes_on_as_the_unbroken_one(self) -> None:
        photos = self.photos()
        for precision in ("float32", "bfloat16"):
            config = TrainConfig.model_validate(
                {"steps": 3, "batch": 4, "precision": precision, "ema_decay": 0.9, "discriminator_steps": 2}
            )
            unbroken = Trainer(self.make(), photos, config, 0, ("contract",))
            unbroken.step(0)
            state = unbroken.state()
            losses = unbroken.step(1)
            resumed = Trainer(self.make(), photos, config, 0, ("contract",))
            resumed.load_state(state)
            assert resumed.step(1) == losses
            assert array_digest(resumed.state()) == array_digest(unbroken.state()), precision

    def trained_by(self, workers: int, batch: int, micro_batch: int, precision: str = "float32") -> set[str]:
        """Digests of all that a short training leaves with each of some workers, and of the losses it tells."""
        families, photos = [self.make() for _ in range(workers)], self.photos()
        config = TrainConfig.model_validate(
            {"steps": 3, "batch": batch, "precision": precision, "ema_decay": 0.9, "discriminator_steps": 2}
        )

        def train(crew: Crew) -> str:
            trainer = Trainer(families[crew.rank], photos, config, 0, ("contract",), crew=crew, micro_batch=micro_batch)
            trainer.warm_up(1)
            told = {f"loss.{s}.{name}": np.array(v) for s in (0, 1) for name, v in trainer.step(s).items()}
            return array_digest(trainer.state() | told)

        return set(in_crew(workers, train))

    def test_workers_share_a_training_and_agree_on_every_bit(self) -> None:
        for batch, micro_batch, precision in ((6, 2, "float32"), (5, 3, "bfloat16")):
            alone = self.trained_by(1, batch, micro_batch, precision)
            for workers in (2, 3):
                found = self.trained_by(workers, batch, micro_batch, precision)
                assert len(found) == 1, f"{workers} workers end with different weights or losses"
                assert found == alone, f"{workers} workers find another generator than one"

    def test_training_changes_all_but_the_frozen_parts(self) -> None:
        family, config = self.make(), TrainConfig(steps=2, batch=4, precision="float32")
        before = family.tensors()
        trainer = Trainer(family, self.photos(), config, 0, ("contract",))
        for step in range(config.steps):
            trainer.step(step)
        trainer.finish()
        after = family.tensors()
        assert set(before) == set(after)
        for part in family.parts:
            names = [name for name in after if name.startswith(f"{part}.")]
            changed = any(not np.array_equal(before[name], after[name]) for name in names)
            assert changed == (part not in family.frozen_parts), f"{part} {'changed' if changed else 'did not change'}"

    def test_no_global_generator_is_used(self) -> None:
        config, photos, (x, c) = TrainConfig(steps=1, batch=4, precision="float32"), self.photos(), self.batch()
        found: list[Tensors] = []
        for seed in (1, 2):
            family = self.make()
            with no_global_draws(seed):
                Trainer(family, photos, config, 0, ("contract",)).step(0)
                edited, mid = family.edit_and_features(x, c)
            found.append(family.tensors() | {"edit": edited.detach().numpy(), "mid": mid.detach().numpy()})
        assert array_digest(found[0]) == array_digest(found[1])

    def test_config_and_tensors_build_it_again(self) -> None:
        family, (x, c) = self.make(), self.batch()
        config = family.config_class.model_validate_json(family.config_json())
        again = type(family)(config)
        assert again.config_json() == family.config_json()
        assert (again.attributes, set(again.parts)) == (family.attributes, set(family.parts))
        tensors = family.tensors()
        assert {name: value.shape for name, value in again.tensors().items()} == {
            name: value.shape for name, value in tensors.items()
        }
        for value in tensors.values():
            value.flags.writeable = False  # as arrays out of an object store are
        again.load(tensors)
        assert torch.equal(again.freeze().edit(x, c), family.freeze().edit(x, c))

    def test_what_is_saved_edits_alike(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        family, (x, c) = self.make(), self.batch()
        # Found by name before its entry point is installed, too.
        monkeypatch.setitem(GENERATORS, family.name, type(family))
        save_family(tmp_path / "x.safetensors", family)
        loaded = load_family(tmp_path / "x.safetensors")
        assert type(loaded) is type(family)
        assert array_digest(loaded.tensors()) == array_digest(family.tensors())
        assert torch.equal(loaded.freeze().edit(x, c), family.freeze().edit(x, c))

    def test_a_restart_keeps_the_frozen_parts_alone(self) -> None:
        family = self.make()
        anew = restart(family, 1, "contract")
        assert anew.config_json() == family.config_json()
        for parts, kept in ((family.frozen_parts, True), (("generator",), False)):
            assert (array_digest(anew.tensors(parts)) == array_digest(family.tensors(parts))) == kept, parts

    def test_sides_that_do_not_fit_are_refused(self) -> None:
        family, (x, c) = self.make().freeze(), self.batch()
        family.check_side(self.size, "faces.size")
        smallest = 2 * family.side_multiple
        for side in {family.side_multiple, smallest + 1 if family.side_multiple > 1 else 1}:
            with pytest.raises(UserError, match=r"faces\.size"):
                family.check_side(side, "faces.size")
        photos = torch.nn.functional.interpolate(x, size=(smallest, smallest))
        problem = f"photos of {smallest} px pass the check, and do not fit"
        try:
            edited = family.edit(photos, c)
        except RuntimeError as error:
            raise AssertionError(problem) from error
        assert edited.shape == photos.shape, problem

    @staticmethod
    def _train_mode(family: Family) -> None:
        for part, module in family.parts.items():
            trained = part not in family.frozen_parts
            module.train(trained).requires_grad_(trained)

    @staticmethod
    def _touched(family: Family, total: torch.Tensor) -> set[str]:
        """Parts with a weight whose gradient is not zero; frozen ones ask for none. The graph is kept."""
        weights = [(part, w) for part, m in family.parts.items() for w in m.parameters() if w.requires_grad]
        slopes = torch.autograd.grad(total, [w for _, w in weights], allow_unused=True, retain_graph=True)
        pairs = zip(weights, slopes, strict=True)
        return {part for (part, _), slope in pairs if slope is not None and bool(slope.any())}
