"""Which edits a photo is asked for, and what its labels become."""

from __future__ import annotations

import torch

from tsdf_ray.faces.edits import all_edits, draw_edits, edit_labels

FOUR = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male")
MANY = ("Bald", "Bangs", "Black_Hair", "Blond_Hair", "Male", "Mustache", "No_Beard", "Wavy_Hair", "Straight_Hair")


def labels(attributes: tuple[str, ...], *present: str) -> torch.Tensor:
    return torch.tensor([float(name in present) for name in attributes])


def after(edit: str, *present: str) -> set[str]:
    target = edit_labels(labels(MANY, *present), MANY.index(edit), MANY)
    return {name for name, value in zip(MANY, target.tolist(), strict=True) if value == 1}


def test_a_hair_colour_replaces_the_other_and_the_rest_is_flipped() -> None:
    own = labels(FOUR, "Black_Hair", "Male")
    assert edit_labels(own, 1, FOUR).tolist() == [0, 1, 0, 1]
    assert edit_labels(own, 3, FOUR).tolist() == [1, 0, 0, 0]
    assert own.tolist() == [1, 0, 0, 1]


def test_what_contradicts_an_edit_is_switched_off() -> None:
    assert after("Bald", "Bangs", "Male") == {"Bald", "Male"}
    assert after("Bangs", "Bald") == {"Bangs"}
    assert after("Mustache", "No_Beard", "Male") == {"Mustache", "Male"}
    assert after("No_Beard", "Mustache") == {"No_Beard"}
    assert after("Straight_Hair", "Wavy_Hair") == {"Straight_Hair"}
    # Switching off contradicts nothing, and names a family does not have are no matter.
    assert after("Bangs", "Bangs", "Wavy_Hair") == {"Wavy_Hair"}
    assert edit_labels(labels(("Bald",)), 0, ("Bald",)).tolist() == [1]


def test_every_edit_that_differs_is_asked_for_once_and_draws_are_among_them() -> None:
    own = torch.stack([labels(FOUR, "Black_Hair"), labels(FOUR, "Brown_Hair", "Male")])
    edits = all_edits(own, FOUR)
    pairs = list(zip(edits.photo_P.tolist(), edits.attribute_P.tolist(), strict=True))
    assert pairs == [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 3)]
    wanted = {(b, tuple(t)) for b, t in zip(edits.photo_P.tolist(), edits.target_PA.tolist(), strict=True)}
    drawn = {
        (b, tuple(row))
        for seed in range(60)
        for b, row in enumerate(draw_edits(own, FOUR, torch.Generator().manual_seed(seed)).tolist())
    }
    assert drawn == wanted
