"""What may stand where in a scenario: the config class behind every section, and the keys it takes."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from tsdf_ray.attackers import ATTACKERS, AttackerConfig
from tsdf_ray.defenders import DEFENDERS
from tsdf_ray.errors import UserError
from tsdf_ray.registry import look_up
from tsdf_ray.scenario.entries import DefenderEntry
from tsdf_ray.scenario.model import Scenario


def valid_keys(path: tuple[str | int, ...], content: Any) -> list[str]:
    """The keys of the section at `path` of a scenario's `content`; empty when the place is not a section."""
    annotation: Any = Scenario
    at = content
    for part in path:
        model = _model(annotation, at)
        if model is None:
            # A mapping of names, or a list: its values are the sections.
            arguments = get_args(annotation)
            annotation = arguments[-1 if get_origin(annotation) is dict else 0] if arguments else None
        else:
            annotation = _fields(model, at).get(str(part))
        at = _below(at, part)
    model = _model(annotation, at)
    return [] if model is None else list(_fields(model, at))


def _below(at: Any, part: str | int) -> Any:
    if isinstance(at, Mapping):
        return at.get(part)
    return at[part] if isinstance(at, list) and isinstance(part, int) and part < len(at) else None


def _model(annotation: Any, at: Any) -> type[BaseModel] | None:
    """The config class of a section; of several, the one whose `kind` the section names, or else the first."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in {Union, types.UnionType}:
        models = [m for m in (_model(choice, at) for choice in get_args(annotation)) if m is not None]
        kind = at.get("kind") if isinstance(at, Mapping) else None
        named = [m for m in models if kind in _kinds(m)]
        return next(iter([*named, *models]), None)
    if hasattr(annotation, "__metadata__"):
        return _model(get_args(annotation)[0], at)
    return None


def _kinds(model: type[BaseModel]) -> tuple[Any, ...]:
    """What a section of this class says in `kind`."""
    field = model.model_fields.get("kind")
    return () if field is None else (field.default, *get_args(field.annotation))


def _fields(model: type[BaseModel], at: Any) -> dict[str, Any]:
    """Key -> type. A defender's section is flat: beside its own keys stand those of its kind's config."""
    fields = {name: field.annotation for name, field in model.model_fields.items()}
    if model is DefenderEntry:
        del fields["config"]
        try:
            kind = str(at.get("kind")) if isinstance(at, Mapping) else ""
            fields |= _fields(look_up("defenders", kind, DEFENDERS).config_class, None)
        except UserError:
            return fields
    if model is AttackerConfig and isinstance(at, Mapping) and "kind" in at:
        try:
            own = look_up("attackers", str(at["kind"]), ATTACKERS).config_class
        except UserError:
            return fields
        return {name: field.annotation for name, field in own.model_fields.items()}
    return fields


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """' Did you mean X?' when a valid name is near, else ''."""
    near = difflib.get_close_matches(name, list(valid), 1)
    return f" Did you mean {near[0]!r}?" if near else ""
