"""The built-in families against the contract a plug-in author uses."""

from __future__ import annotations

import pytest

from tsdf_ray.generators import (
    GENERATORS,
    AttentionGAN,
    AttentionGANConfig,
    AttGAN,
    AttGANConfig,
    Family,
    HiSD,
    HiSDConfig,
    StarGAN,
    StarGANConfig,
    fresh_family,
)
from tsdf_ray.testing.generator_contract import GeneratorContract
from tsdf_ray.testing.tiny import tiny_editor, tiny_faces

LABELS = ("Bangs", "Eyeglasses", "Black_Hair", "Blond_Hair", "Brown_Hair")
CRITIC = {"image_size": 32, "discriminator_width": 4, "discriminator_layers": 3}


class TestEditor(GeneratorContract):
    def make(self) -> Family:
        return tiny_editor(0)


class TestStarGAN(GeneratorContract):
    def make(self) -> Family:
        config = StarGANConfig.model_validate({"attributes": LABELS, "width": 4, "blocks": 1, **CRITIC})
        return fresh_family(StarGAN, config, 0, "test")


class TestAttentionGAN(GeneratorContract):
    bounded = False

    def make(self) -> Family:
        config = AttentionGANConfig.model_validate({"attributes": LABELS, "width": 4, "blocks": 1, **CRITIC})
        return fresh_family(AttentionGAN, config, 0, "test")


class TestAttGAN(GeneratorContract):
    def make(self) -> Family:
        sizes = {"attributes": LABELS, "width": 4, "widest": 16, "layers": 3, "hidden": 8, **CRITIC}
        return fresh_family(AttGAN, AttGANConfig.model_validate(sizes), 0, "test")


class TestHiSD(GeneratorContract):
    """With a reference photo for one style: a frozen part."""

    bounded = False

    def make(self) -> Family:
        sizes = {
            "widths": (4, 6),
            "translator_widths": (4, 4),
            "extractor_widths": (4, 5),
            "mapper_widths": (4, 5),
            "choice_widths": (5, 6),
            "style": 7,
            "noise": 3,
            "discriminator_widths": (4, 5),
            "image_size": 32,
        }
        family = fresh_family(HiSD, HiSDConfig.model_validate(sizes), 0, "test")
        assert isinstance(family, HiSD)
        return family.with_reference("Eyeglasses", tiny_faces(1).images()[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", GeneratorContract.__subclasses__(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("batch", "micro_batch"), [(4, 1), (5, 2), (4, 3)])
def test_uneven_micro_batches_and_those_of_one_photo(
    kind: type[GeneratorContract], batch: int, micro_batch: int
) -> None:
    alone = kind().trained_by(1, batch, micro_batch)
    assert kind().trained_by(2, batch, micro_batch) == kind().trained_by(3, batch, micro_batch) == alone
    assert len(alone) == 1


@pytest.mark.parametrize("name", GENERATORS)
def test_every_built_in_family_is_here(name: str) -> None:
    assert GENERATORS[name].name == name
    assert name in {contract().make().name for contract in GeneratorContract.__subclasses__()}
