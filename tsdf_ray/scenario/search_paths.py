"""Dotted keys of a scenario: where they lead, whether there is such a key, and a scenario with other values there."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from tsdf_ray.errors import UserError
from tsdf_ray.scenario.keys import did_you_mean, valid_keys
from tsdf_ray.scenario.yamlfile import KeyPath

PLAYERS = ("defenders", "attackers")
SEARCHED = "searched keys begin with defenders.NAME, attackers.NAME or publish, or are the generator"


def locate(content: Any, dotted: str) -> KeyPath:
    """The keys that `dotted` names in a scenario's content; the last ones need not be there yet.

    Names may contain dots: at each mapping the longest key that is there counts. A number is a place in a list.
    """
    parts, keys, at = dotted.split("."), list[str | int](), content
    start = 0
    while start < len(parts):
        key: str | int = parts[start]
        end = start + 1
        if isinstance(at, Mapping):
            there = (end for end in range(len(parts), start, -1) if ".".join(parts[start:end]) in at)
            end = next(there, start + 1)
            key = ".".join(parts[start:end])
        elif isinstance(at, list) and parts[start].isdecimal():
            key = int(parts[start])
        keys.append(key)
        at = below(at, key)
        start = end
    return tuple(keys)


def below(at: Any, key: str | int) -> Any:
    """What stands under a key of a mapping or a place of a list; None where nothing does."""
    if isinstance(at, Mapping):
        return at.get(key)
    return at[key] if isinstance(at, list) and isinstance(key, int) and key < len(at) else None


def with_values(content: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of a scenario's content with `values` (dotted key -> value) put in; absent sections begin there.

    Shorter keys first: `publish.quality` goes into the section that `publish` puts there. Raises UserError where a key
    leads through something that is no section.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(content))
    for dotted in sorted(values, key=lambda name: len(locate(content, name))):
        at: Any = changed
        path = locate(changed, dotted)
        for depth, key in enumerate(path[:-1]):
            if below(at, key) is None and isinstance(at, dict):
                at[key] = {}
            at = below(at, key)
            if not isinstance(at, dict | list):
                raise UserError(f"{dotted}: {_joined(path[: depth + 1])} is not a section; it has no keys")
        if isinstance(at, list) and not (isinstance(path[-1], int) and path[-1] < len(at)):
            raise UserError(f"{dotted}: {_joined(path[:-1])} is a list of {len(at)}; give a place from 0 on")
        at[path[-1]] = copy.deepcopy(values[dotted])
    return changed


def trouble_with(content: Mapping[str, Any], dotted: str) -> str | None:
    """Why `dotted` is no key that can be searched in a scenario of this content; None when it is one."""
    path = locate(content, dotted)
    head = path[0]
    if head in PLAYERS and len(path) == 1:
        return SEARCHED
    if head not in (*PLAYERS, "publish", "generator"):
        return SEARCHED + did_you_mean(str(head), (*PLAYERS, "publish", "generator"))
    at: Any = content.get(str(head))
    for depth in range(1, len(path)):
        section, key = path[:depth], path[depth]
        # Players are those of the file: no search begins one.
        valid = list(content[head]) if head in PLAYERS and depth == 1 else valid_keys(section, content)
        if isinstance(at, list):
            if not (isinstance(key, int) and key < len(at)):
                return f"{_joined(section)} is a list of {len(at)}; its places are numbers from 0 on"
        elif valid and key not in valid:
            what = "name" if head in PLAYERS and depth == 1 else "key"
            near = did_you_mean(str(key), valid)
            return f"unknown {what} {str(key)!r} in {_joined(section)}.{near} Valid {what}s: {', '.join(valid)}"
        elif not valid and not isinstance(at, Mapping):
            return f"{_joined(section)} is not a section; it has no keys"
        at = below(at, key)
    return None


def _joined(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)
