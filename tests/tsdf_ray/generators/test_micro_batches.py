"""Batches in micro-batches: sums in order, buffers, named draws, failures on all workers alike."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from tsdf_ray.crew import SOLO, Crew
from tsdf_ray.digest import array_digest
from tsdf_ray.errors import MatchFailed
from tsdf_ray.faces.edits import draw_edits
from tsdf_ray.generators import (
    AttGAN,
    AttGANConfig,
    EditorConfig,
    Family,
    StarGAN,
    StarGANConfig,
    TrainConfig,
    Trainer,
    fresh_family,
    train,
)
from tsdf_ray.generators.editor import Editor
from tsdf_ray.generators.micro_batches import Buffers, Division, Losses, MicroBatch, Terms
from tsdf_ray.testing.crews import in_crew
from tsdf_ray.testing.tiny import tiny_editor, tiny_faces

EXACT = TrainConfig(steps=4, batch=5, precision="float32", decay_share=0.0)


def attgan() -> Family:
    sizes = {"width": 4, "widest": 16, "layers": 3, "hidden": 8, "discriminator_width": 4, "discriminator_layers": 3}
    config = AttGANConfig.model_validate({"attributes": tiny_faces(1).attributes, "image_size": 32, **sizes})
    return fresh_family(AttGAN, config, 0, "test")


def plain_editor() -> Family:
    """Without draws in its losses and without terms whose mean is over another number than the photos'."""
    config = EditorConfig(
        widths=(8, 8),
        blocks=1,
        discriminator_widths=(8, 8, 8),
        classifier_width=4,
        augment=False,
        identity_share=1.0,
        wrong_label_weight=0.0,
    )
    return fresh_family(Editor, config, 0, "test")


def plain_stargan() -> Family:
    sizes = {"width": 4, "blocks": 1, "image_size": 32, "discriminator_width": 4, "discriminator_layers": 3}
    config = StarGANConfig.model_validate({"attributes": tiny_faces(1).attributes, "adversarial": "hinge", **sizes})
    return fresh_family(StarGAN, config, 0, "test")


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Photos, their labels and edited ones."""
    faces = tiny_faces(count, seed=3)
    return (
        faces.images(),
        faces.labels(),
        draw_edits(faces.labels(), faces.attributes, torch.Generator().manual_seed(1)),
    )


def named(i: int) -> torch.Generator:
    return torch.Generator().manual_seed(i)


def fine(_: Terms) -> None:
    """No term is unfit."""


def divided(
    family: Family, part: str, crew: Crew, count: int, micro_batch: int | None
) -> tuple[Terms, list[torch.Tensor]]:
    """Terms and gradients of a part's loss."""
    for name, module in family.parts.items():
        module.train(name not in family.frozen_parts).requires_grad_(name not in family.frozen_parts)
    division = Division(count, micro_batch, crew, [family.parts["generator"], family.parts["discriminator"]])
    loss = family.discriminator_loss if part == "discriminator" else family.generator_loss

    def losses(micro: MicroBatch) -> Losses:
        return loss(micro.x_BCHW, micro.own_BA, micro.target_BA, micro.rng, micro.fake_BCHW)

    mine = division.mine(*batch(count), named(0), named)
    terms, gradients = division.gradients(mine, losses, list(family.parts[part].parameters()), fine)
    return terms, [torch.zeros(()) if gradient is None else gradient for gradient in gradients]


@pytest.mark.parametrize("make", [plain_editor, plain_stargan])
@pytest.mark.parametrize("part", ["generator", "discriminator"])
@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_micro_batches_have_the_gradients_of_the_whole(make: Callable[[], Family], part: str, micro_batch: int) -> None:
    terms, gradients = divided(make(), part, SOLO, 5, None)
    families = [make(), make()]
    for found, parts in in_crew(2, lambda crew: divided(families[crew.rank], part, crew, 5, micro_batch)):
        assert found == pytest.approx(terms, rel=1e-5)
        largest = max(float(gradient.abs().max()) for gradient in gradients)
        assert largest > 0.01
        for one, other in zip(gradients, parts, strict=True):
            torch.testing.assert_close(other, one, rtol=2e-4, atol=2e-5 * largest)


class Sums:
    """One weight; the gradient of photo i is its first pixel, times 4: with four photos the shares take that off."""

    def __init__(self) -> None:
        self.weight, self.idle = torch.ones(1, requires_grad=True), torch.ones(2, requires_grad=True)
        self.late = torch.ones(1, requires_grad=True)

    def losses(self, part: MicroBatch) -> Losses:
        own = part.x_BCHW[:, 0, 0, 0].mean()
        found = {"own": own * self.weight.sum()}
        if float(own) == 1.0:
            found["rare"] = 4 * self.late.sum()
        return found

    def of(self, crew: Crew, pixels: list[float], micro_batch: int) -> tuple[Terms, list[torch.Tensor | None]]:
        x_BCHW = torch.tensor(pixels).reshape(-1, 1, 1, 1)
        division = Division(len(pixels), micro_batch, crew, [])
        mine = division.mine(x_BCHW, x_BCHW, x_BCHW, named(0), named)
        return division.gradients(mine, self.losses, [self.weight, self.idle, self.late], fine)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_sums_go_in_the_order_of_the_micro_batches(workers: int) -> None:
    """Float32: (1e8 + 1) - 1e8 + 1 is 1 in this order, and 2 or 0 in others."""
    pixels = [4e8, 4.0, -4e8, 4.0]
    for terms, gradients in in_crew(workers, lambda crew: Sums().of(crew, pixels, 1)):
        assert gradients[0] is not None
        assert gradients[0].tolist() == [1.0]
        assert terms["own"] == 2.0  # in float64


def test_terms_are_weighted_by_photos_and_weights_no_photo_reaches_stay() -> None:
    pixels = [3.0, 5.0, 1.0]
    for terms, gradients in [Sums().of(SOLO, pixels, 2), *in_crew(2, lambda crew: Sums().of(crew, pixels, 2))]:
        assert terms == {"own": pytest.approx(3.0), "rare": pytest.approx(4 / 3)}
        weight, idle, late = gradients
        assert weight is not None
        assert weight.tolist() == pytest.approx([3.0])
        assert idle is None
        assert late is not None
        assert late.tolist() == pytest.approx([4 / 3])


def buffers(family: Family) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in family.parts["generator"].named_buffers()}


def test_batch_norm_remembers_the_mean_of_its_micro_batches() -> None:
    """Each starts from the same running statistics; what it adds counts by its photos. Worked out by hand here."""
    start = buffers(attgan())
    expected = {name: value.astype(np.float64) for name, value in start.items()}
    x_BCHW, own_BA, target_BA = batch(5)
    for i, photos in enumerate((slice(0, 2), slice(2, 4), slice(4, 5))):
        family = attgan()
        family.parts["generator"].train()
        family.generator_loss(x_BCHW[photos], own_BA[photos], target_BA[photos], named(i))
        share = (photos.stop - photos.start) / 5
        for name, value in buffers(family).items():
            expected[name] += share * (value.astype(np.float64) - start[name])
    for workers in (1, 2, 3):
        families = [attgan() for _ in range(workers)]
        in_crew(workers, lambda crew, families=families: divided(families[crew.rank], "generator", crew, 5, 2))  # type: ignore[misc]
        for family in families:
            found = buffers(family)
            assert array_digest(found) == array_digest(buffers(families[0]))
            for name, value in found.items():
                assert value.dtype == start[name].dtype
                np.testing.assert_allclose(value, expected[name], rtol=1e-6, err_msg=name)
                assert not np.array_equal(value, start[name]), name


def test_an_undivided_batch_leaves_the_statistics_of_its_passes() -> None:
    family, plain = attgan(), attgan()
    plain.parts["generator"].train()
    plain.generator_loss(*batch(5), named(0))
    divided(family, "generator", SOLO, 5, None)
    assert array_digest(buffers(family)) == array_digest(buffers(plain))


@pytest.mark.parametrize("critics", [1, 2])
def test_the_statistics_move_as_often_as_undivided(critics: int) -> None:
    """The pass that is made again with its graph counts once."""
    config, counts = EXACT.model_copy(update={"discriminator_steps": critics}), []
    for micro_batch in (None, 2):
        family = attgan()
        Trainer(family, tiny_faces(8), config, 0, (), micro_batch=micro_batch).step(0)
        counts.append({name: int(v) for name, v in buffers(family).items() if "num_batches" in name})
    assert counts[0] == counts[1]
    assert set(counts[0].values()) == {critics + 1}


def test_buffers_that_no_pass_touches_keep_their_bits() -> None:
    class Holding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("still", torch.tensor([0.1, -0.0, 1e-30]))
            self.register_buffer("count", torch.tensor([2**40 + 1]))
            self.register_buffer("flag", torch.tensor([True]))

    module = Holding()
    before = copy.deepcopy(module.state_dict())
    kept = Buffers([module])
    with kept.unchanged():
        module.get_buffer("count").add_(7)
    kept.start()
    parts = []
    for share in (0.3, 0.3, 0.4):
        kept.rewind()
        module.get_buffer("count").add_(3)
        parts.append(kept.added(share))
    kept.settle([torch.stack(each).sum(0) for each in zip(*parts, strict=True)])
    assert module.get_buffer("count").tolist() == [2**40 + 4]
    assert module.get_buffer("flag").tolist() == [True]
    assert torch.equal(module.get_buffer("still").view(torch.int32), before["still"].view(torch.int32))


def test_a_batch_that_is_not_divided_is_as_it_was() -> None:
    digests = set()
    for micro_batch in (None, 5, 64):
        family = tiny_editor(0)
        train(family, tiny_faces(8), EXACT, 0, (), micro_batch=micro_batch)
        digests.add(array_digest(family.tensors()))
    families = [tiny_editor(0), tiny_editor(0)]
    in_crew(2, lambda crew: train(families[crew.rank], tiny_faces(8), EXACT, 0, (), crew=crew))
    digests |= {array_digest(family.tensors()) for family in families}
    assert len(digests) == 1


def test_a_changed_batch_and_a_warm_up_are_shared_too() -> None:
    seen: list[int] = []

    def change(x_BCHW: torch.Tensor, c_BA: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        seen.append(len(x_BCHW))
        return x_BCHW + 0.1 * torch.rand(x_BCHW.shape, generator=rng)

    digests = set()
    for workers in (1, 2):
        families = [tiny_editor(0) for _ in range(workers)]

        def work(crew: Crew, families: list[Editor] = families) -> str:
            family = families[crew.rank]
            train(family, tiny_faces(8), EXACT, 0, (), change=change, warm_up=2, crew=crew, micro_batch=2)
            return array_digest(family.tensors())

        digests |= set(in_crew(workers, work))
        assert sorted(seen) == sorted([2, 2, 1] * 4)
        seen.clear()
    assert len(digests) == 1


class BreaksOnOnePhoto(Editor):
    """The term d_fake of a micro-batch of one photo is infinite: that of the last worker."""

    def discriminator_loss(self, x_BCHW: torch.Tensor, *args: object, **more: object) -> dict[str, torch.Tensor]:
        terms = super().discriminator_loss(x_BCHW, *args, **more)  # type: ignore[arg-type]
        return terms | ({"d_fake": terms["d_fake"] * float("inf")} if len(x_BCHW) == 1 else {})


def test_a_term_that_is_not_finite_anywhere_ends_the_match_on_every_worker() -> None:
    config = tiny_editor(0).config
    families = [fresh_family(BreaksOnOnePhoto, config, 0) for _ in range(3)]
    before = array_digest(families[0].tensors())

    def work(crew: Crew) -> str:
        with pytest.raises(MatchFailed) as failure:
            train(families[crew.rank], tiny_faces(8), EXACT, 0, (), crew=crew, micro_batch=2)
        return str(failure.value)

    assert in_crew(3, work) == ["training editor: loss term d_fake became inf at step 0"] * 3
    assert {array_digest(family.tensors()) for family in families} == {before}
