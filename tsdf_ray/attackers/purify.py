"""Purification: what an attacker does to photos in the hope of washing a perturbation out, before it trains on them."""

from __future__ import annotations

from collections.abc import Sequence

from tsdf_ray.channels import ChannelConfig, publish
from tsdf_ray.faces.faceset import FaceSet


def purify(steps: Sequence[ChannelConfig], photos: FaceSet) -> FaceSet:
    """`photos` after every channel of `steps`, in order; unchanged by an empty list."""
    for step in steps:
        photos = publish(photos, step)
    return photos
