"""What pydantic says of a scenario's content, in the words of this program: which key, and the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tsdf_ray.scenario.keys import did_you_mean, valid_keys
from tsdf_ray.scenario.yamlfile import KeyPath


def explained(error: ValidationError, content: Any) -> list[tuple[KeyPath, str]]:
    """(path of the key, what is wrong) of every mistake in a scenario's content."""
    found = []
    for item in error.errors():
        path = _in_file(tuple(item["loc"]) + tuple(item.get("ctx", {}).get("path", ())), content)
        if item["type"] in {"union_tag_invalid", "union_tag_not_found"}:
            path = (*path, str(item["ctx"]["discriminator"]).strip("'"))
        found.append((path, _explain(item, path, content)))
    return found


def _in_file(path: KeyPath, content: Any) -> KeyPath:
    """`path` without the tags pydantic adds for unions, which are no keys of the file."""
    kept: list[str | int] = []
    at = content
    for i, part in enumerate(path):
        last = i == len(path) - 1
        inside = (isinstance(at, dict) and part in at) or (isinstance(at, list) and isinstance(part, int))
        if inside:
            at = at[part]
        elif not last:
            continue
        kept.append(part)
    return tuple(kept)


def _explain(item: Mapping[str, Any], path: KeyPath, content: Any) -> str:
    kind, context = item["type"], item.get("ctx", {})
    message = str(item["msg"]).replace("Input should be", "must be").removeprefix("Value error, ")
    if kind == "extra_forbidden":
        valid = valid_keys(path[:-1], content)
        return f"unknown key.{did_you_mean(str(path[-1]), valid)} Valid keys: {', '.join(valid)}"
    if kind == "missing":
        return message if message != "Field required" else "is missing; add it"
    if kind == "union_tag_invalid":
        valid = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        return f"unknown name {context['tag']!r}.{did_you_mean(context['tag'], valid)} Valid names: {', '.join(valid)}"
    if kind == "union_tag_not_found":
        return "is missing; it says which kind of section this is"
    if kind in {"model_type", "model_attributes_type", "dict_type"} and (keys := valid_keys(path, content)):
        message = f"must be a section with keys, of these: {', '.join(keys)}"
    message = message.replace("Tuple should", "must").replace("List should", "must").replace(" after validation", "")
    given = item.get("input")
    return message + ("" if isinstance(given, dict | list | tuple) else f" (given: {given!r})")
