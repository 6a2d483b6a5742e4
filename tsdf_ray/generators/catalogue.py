"""What generator weights there are, and what a file holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tsdf_ray.digest import array_digest, file_digest
from tsdf_ray.generators.official import is_checkpoint
from tsdf_ray.generators.weights import PACKAGED, load_family, locate, read_tensors


@dataclass(frozen=True)
class WeightsInfo:
    """One file of generator weights."""

    path: Path
    family: str
    attributes: tuple[str, ...]
    parameters: dict[str, int]
    """Weights of each part that the file holds."""
    digest: str
    """SHA-256 over the tensors of these parts, as a run records them."""
    file_digest: str
    """SHA-256 of the file."""
    official: bool
    """Whether it is an official checkpoint rather than a file of ours."""
    missing: dict[str, str]
    """Parts that are not trained, and what follows from that."""


@dataclass(frozen=True)
class Packaged:
    """Packaged weights, by their metadata alone."""

    name: str
    family: str
    attributes: tuple[str, ...]


def describe_weights(name_or_path: str | Path) -> WeightsInfo:
    """Load packaged weights, a file of ours or an official checkpoint, and say what it is.

    Raises UserError as `load_family` does.
    """
    path = locate(name_or_path)
    family = load_family(name_or_path)
    official = is_checkpoint(path)
    held = tuple(part for part in family.parts if not (official and part in family.fresh_parts))
    sizes = {part: sum(weight.numel() for weight in family.parts[part].parameters()) for part in held}
    return WeightsInfo(
        path,
        family.name,
        family.attributes,
        {part: size for part, size in sizes.items() if size},
        array_digest(family.tensors(held)),
        file_digest(path),
        official,
        dict.fromkeys(family.fresh_parts, "never trained; retraining starts from a fresh one"),
    )


def packaged_weights() -> list[Packaged]:
    """All packaged weights, by name; no tensor is checked. Raises UserError when one is damaged."""
    found: list[Packaged] = []
    for path in sorted(PACKAGED.glob("*.safetensors")):
        metadata = read_tensors(path)[1]
        attributes = json.loads(metadata.get("attributes", "[]"))
        found.append(Packaged(path.stem, metadata.get("family", "unknown"), tuple(attributes)))
    return found
