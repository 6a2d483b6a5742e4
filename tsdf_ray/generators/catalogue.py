"""What generator weights there are, and what a file holds."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tsdf_ray.digest import array_digest, file_digest
from tsdf_ray.errors import UserError
from tsdf_ray.generators.official import RELEASES, Release, is_checkpoint
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


def releases_like(path: str | Path) -> list[Release]:
    """Official releases whose file has this name; a folder named after the family decides between namesakes."""
    alike = [release for release in RELEASES if re.fullmatch(_pattern(release.file), Path(path).name)]
    folders = {part.lower() for part in Path(path).parts[:-1]}
    return [release for release in alike if release.family in folders] or alike


def _pattern(file: str) -> str:
    """`weights.N.pth` stands for any number."""
    return re.escape(file).replace(re.escape(".N."), r"\.(?:N|\d+)\.")


def family_of(name_or_path: str | Path) -> str | None:
    """The family of weights without loading them, present or not: by a file's metadata, or by an official name.

    None when neither says.
    """
    try:
        path = locate(name_or_path)
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get("family")
    except (UserError, SafetensorError, OSError):
        alike = releases_like(name_or_path)
        return alike[0].family if alike else None


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
