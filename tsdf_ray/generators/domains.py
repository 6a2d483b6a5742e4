"""Label vectors as domains and as targets of a classifier: hair colours exclude each other, the rest is yes or no."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field

from tsdf_ray.faces.faceset import HAIR


def _once_each(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise ValueError("each attribute may be named once")
    return names


Attributes = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_once_each)]
"""The labels a family edits, as its config names them."""


def groups(attributes: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """Columns of the hair colours (a choice of one) and of the other attributes."""
    hair = [a for a, name in enumerate(attributes) if name in HAIR]
    return hair, [a for a in range(len(attributes)) if a not in hair]


def domain_index(labels_BA: torch.Tensor, attributes: tuple[str, ...]) -> torch.Tensor:
    """int64 [B]: the label combination as one number, hair first; counts from 0 without gaps."""
    hair, other = groups(attributes)
    index = labels_BA[:, hair].argmax(1) if hair else labels_BA.new_zeros(len(labels_BA), dtype=torch.int64)
    for a in other:
        index = 2 * index + (labels_BA[:, a] > 0.5).long()
    return index


def label_cross_entropy(logits_BA: torch.Tensor, labels_BA: torch.Tensor, attributes: tuple[str, ...]) -> torch.Tensor:
    """Scalar: softmax cross-entropy over the hair colours plus binary cross-entropy of each other attribute (means)."""
    hair, other = groups(attributes)
    loss = logits_BA.new_zeros(())
    if hair:
        loss = loss + F.cross_entropy(logits_BA[:, hair], labels_BA[:, hair].argmax(1))
    for a in other:
        loss = loss + F.binary_cross_entropy_with_logits(logits_BA[:, a], labels_BA[:, a])
    return loss
