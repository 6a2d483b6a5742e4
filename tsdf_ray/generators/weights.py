"""Weights on disk: safetensors with the family's name, config, attributes and a digest; packaged ones by name.

No pickle on an input path: official third-party checkpoints are read with `weights_only`.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tsdf_ray.digest import array_digest
from tsdf_ray.errors import UserError
from tsdf_ray.files import located
from tsdf_ray.generators.attentiongan import AttentionGAN
from tsdf_ray.generators.attgan import AttGAN
from tsdf_ray.generators.base import Family, Tensors, check_tensors
from tsdf_ray.generators.editor import Editor
from tsdf_ray.generators.hisd import HiSD
from tsdf_ray.generators.official import is_checkpoint, load_official
from tsdf_ray.generators.stargan import StarGAN
from tsdf_ray.registry import look_up
from tsdf_ray.store.atomic import whole_file

GENERATORS: dict[str, type[Family]] = {
    "attentiongan": AttentionGAN,
    "attgan": AttGAN,
    "editor": Editor,
    "hisd": HiSD,
    "stargan": StarGAN,
}
"""Built-in families; plug-ins declare an entry point in the group `tsdf_ray.generators`."""

PACKAGED = Path(str(files("tsdf_ray").joinpath("assets", "generators")))


def save_family(path: Path, family: Family) -> None:
    """Write all parts of `family` to one safetensors file, atomically.

    Metadata: family, config, attributes, digest, and the parts that an official file did not hold.
    """
    tensors = family.tensors()
    metadata = {
        "family": family.name,
        "config": family.config_json(),
        "attributes": json.dumps(family.attributes),
        "digest": array_digest(tensors),
        "fresh_parts": json.dumps(family.fresh_parts),
    }
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_family(name_or_path: str | Path) -> Family:
    """A family from packaged weights (`editor-128`), a file written by `save_family`, or an official checkpoint.

    An official generator comes without a discriminator: `Family.fresh_parts` says so. Raises UserError: no such file or
    name, not safetensors, missing metadata, unknown family, config or tensors that do not fit (naming the tensor, what
    was expected and what was found), and a digest that does not match the tensors; and what `load_official` raises.
    """
    path = locate(name_or_path)
    if is_checkpoint(path):
        return load_official(path)
    tensors, metadata = read_tensors(path)
    missing = [key for key in ("family", "config", "digest") if key not in metadata]
    if missing:
        raise UserError(f"{path}: not a generator of ours: no {', '.join(missing)} in its metadata")
    kind = look_up("generators", metadata["family"], GENERATORS)
    try:
        config = kind.config_class.model_validate_json(metadata["config"])
    except ValidationError as error:
        raise UserError(f"{path}: its config does not fit the family {metadata['family']!r}: {error}") from error
    family = kind(config)
    check_tensors(str(path), family.tensors(), tensors)
    found = array_digest(tensors)
    if found != metadata["digest"]:
        raise UserError(
            f"{path}: changed or damaged: digest {found[:12]}..., expected {metadata['digest'][:12]}...; "
            "fetch the file again"
        )
    family.load(tensors)
    family.fresh_parts = tuple(json.loads(metadata.get("fresh_parts", "[]")))
    return family


def locate(name_or_path: str | Path) -> Path:
    """The file of a packaged name or of a path. Raises UserError, listing the packaged names, when there is none."""
    if is_packaged(name_or_path):
        return PACKAGED / f"{name_or_path}.safetensors"
    path = located(name_or_path)
    if not path.is_file():
        raise UserError(
            f"generator {str(name_or_path)!r}: no such file and no packaged weights; packaged: {packaged_names()}"
        )
    return path


def is_packaged(name_or_path: str | Path) -> bool:
    """Whether packaged weights have this name."""
    named = isinstance(name_or_path, str) and "/" not in name_or_path
    return named and (PACKAGED / f"{name_or_path}.safetensors").is_file()


def packaged_names() -> str:
    """All of them, for messages."""
    return ", ".join(sorted(path.stem for path in PACKAGED.glob("*.safetensors"))) or "none"


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises UserError when it is none."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read as safetensors: {error}") from error
