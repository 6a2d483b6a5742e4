"""Edits a deepfake is asked for: a target label vector that differs from the photo's own attributes.

A hair colour replaces the photo's own (they exclude each other); any other attribute is flipped, and one that is
switched on switches off what contradicts it (as AttGAN's published code does, He et al. 2019, arXiv 1711.10678).
Evaluation asks every photo for every edit that differs from it (METHOD section 3); learning draws one of them
uniformly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tsdf_ray.faces.faceset import HAIR

CONTRADICTIONS = (
    ("Bald", "Bangs"),
    ("Receding_Hairline", "Bangs"),
    ("Straight_Hair", "Wavy_Hair"),
    ("Mustache", "No_Beard"),
)
"""Attributes of which a face has at most one."""


@dataclass(frozen=True)
class Edits:
    """All (photo, edit) pairs of a set: pair p edits photo_P[p] towards the labels target_PA[p]; names_P says which."""

    photo_P: torch.Tensor
    """int64 [P], index of the photo."""
    target_PA: torch.Tensor
    """float32 [P, A], the requested labels, 0 or 1."""
    attribute_P: torch.Tensor
    """int64 [P], index of the requested attribute."""

    def __len__(self) -> int:
        return int(self.photo_P.numel())


def all_edits(labels_BA: torch.Tensor, attributes: tuple[str, ...]) -> Edits:
    """Every edit of every photo that differs from the photo's own labels, ordered by photo, then attribute."""
    photos: list[int] = []
    targets: list[torch.Tensor] = []
    chosen: list[int] = []
    for b, own_A in enumerate(labels_BA):
        for a, name in enumerate(attributes):
            if name in HAIR and own_A[a] > 0.5:
                continue
            photos.append(b)
            targets.append(edit_labels(own_A, a, attributes))
            chosen.append(a)
    stacked = torch.stack(targets) if targets else labels_BA.new_zeros((0, len(attributes)))
    return Edits(torch.tensor(photos, dtype=torch.int64), stacked.float(), torch.tensor(chosen, dtype=torch.int64))


def edit_labels(own_A: torch.Tensor, attribute: int, attributes: tuple[str, ...]) -> torch.Tensor:
    """`own_A` with one attribute edited: a hair colour chosen instead of the present one, anything else flipped.

    What contradicts an attribute that is switched on is switched off.
    """
    target_A = own_A.clone()
    if attributes[attribute] in HAIR:
        for other, name in enumerate(attributes):
            if name in HAIR:
                target_A[other] = 0.0
        target_A[attribute] = 1.0
    else:
        target_A[attribute] = 1.0 - own_A[attribute]
        for pair in CONTRADICTIONS:
            if attributes[attribute] in pair and target_A[attribute] > 0.5:
                (other_name,) = set(pair) - {attributes[attribute]}
                if other_name in attributes:
                    target_A[attributes.index(other_name)] = 0.0
    return target_A


def draw_edits(labels_BA: torch.Tensor, attributes: tuple[str, ...], rng: torch.Generator) -> torch.Tensor:
    """One target per photo, drawn uniformly from the edits that differ from its own labels: float32 [B, A]."""
    rows: list[torch.Tensor] = []
    for own_A in labels_BA:
        possible = [a for a, name in enumerate(attributes) if not (name in HAIR and own_A[a] > 0.5)]
        pick = possible[int(torch.randint(len(possible), (1,), generator=rng))]
        rows.append(edit_labels(own_A, pick, attributes))
    return torch.stack(rows).float()
