"""Registries are dicts, name -> class; an unknown name lists the valid ones.

A user's own class can be named in a scenario without touching this package: its distribution declares an entry point
in the group `tsdf_ray.<room>` (defenders, attackers, generators, detectors, channels, executors, collections).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TypeVar

from tsdf_ray.errors import UserError

T = TypeVar("T")


def look_up(room: str, name: str, builtin: Mapping[str, T]) -> T:
    """The class called `name` in `room`: a built-in one, or an installed plug-in's.

    Raises UserError, listing the valid names, when there is none, and when a plug-in cannot be imported.
    """
    if name in builtin:
        return builtin[name]
    plugins = {point.name: point for point in entry_points(group=f"tsdf_ray.{room}")}
    if name not in plugins:
        raise UserError(f"{room}: unknown name {name!r}; valid names: {known(room, builtin)}")
    try:
        loaded: T = plugins[name].load()
    except Exception as error:  # a plug-in may raise anything at import
        raise UserError(f"{room}: plug-in {name!r} ({plugins[name].value}) cannot be loaded: {error}") from error
    return loaded


def known(room: str, builtin: Mapping[str, object]) -> str:
    """The valid names of a room, comma-separated, for messages."""
    return ", ".join(sorted({*builtin, *(point.name for point in entry_points(group=f"tsdf_ray.{room}"))}))
