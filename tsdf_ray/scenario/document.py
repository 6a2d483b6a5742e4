"""docs/scenario.md, written from the models: `python -m tsdf_ray.scenario.document > docs/scenario.md`."""

from __future__ import annotations

import json
import sys
from typing import Any

from tsdf_ray.scenario.schema import json_schema

HEAD = """# The scenario file

Written from the config classes by `python -m tsdf_ray.scenario.document`; edit those, not this file.

A scenario is one YAML file (UTF-8, at most 1 MB): every key below may stand in it, no other. Keys without a default
must be given. `tsdf-ray scenarios list` names the packaged ones, `scenarios show NAME` prints one as an example
(`--filled`: with all defaults), `scenarios check FILE` checks one without playing it, `scenarios schema` prints the
JSON Schema. On the command line `play SCENARIO --set dotted.key=value` changes a key.

Names under `defenders` and `attackers` are free: letters, digits, `_` and `.`, at most 40; they become folder names.
Epsilon and all perturbations are on the [-1, 1] scale (0.05 = 6.375/255).
"""


def document() -> str:
    """The whole page as Markdown."""
    schema = json_schema()
    parts = [HEAD, *_section("scenario", "", schema, schema["$defs"], set())]
    return "\n".join(parts).rstrip("\n") + "\n"


def _section(
    title: str, path: str, section: dict[str, Any], definitions: dict[str, Any], told: set[tuple[str, str]]
) -> list[str]:
    """A heading, a table of the keys, then the sections below it.

    Left out: keys `told` at this path already, and kinds that may stand at several places, told at another.
    """
    lines = [f"## {title}", ""]
    if section.get("description"):
        # The first paragraph: what follows in a docstring is for those who read the code.
        lines += [" ".join(section["description"].split("\n\n")[0].split()), ""]
    keys = dict(section["properties"])
    if not section.get("description"):
        # Kinds of defenders, which build on each other.
        keys = {key: item for key, item in keys.items() if key == "kind" or (path, key) not in told}
    if len(keys) < len(section["properties"]):
        lines += ["Every key of the kind above, and:", ""]
    told |= {(path, key) for key in keys}
    lines += ["| key | values | default | meaning |", "|---|---|---|---|"]
    below: list[tuple[str, str, dict[str, Any]]] = []
    for key, item in keys.items():
        required = key in section.get("required", [])
        default = "" if required or "default" not in item else f"`{json.dumps(item['default'])}`"
        inner = _sections_in(item, definitions)
        for kind, found in inner:
            name = f"{path}.{key}" if path else key
            name += ".NAME" if "additionalProperties" in item and isinstance(item["additionalProperties"], dict) else ""
            below.append((f"{name} of kind `{kind}`" if kind else name, name, found))
        several = item.get("type") == "array"
        values = _values(item, definitions) if several or not inner else "section"
        if required:
            default = "must be given"
        elif inner and not several:
            default = "all defaults" if default not in {"", "`null`"} else default
        lines.append(f"| `{key}` | {values} | {default} | {_cell(item.get('description', ''))} |")
    lines.append("")
    for heading, name, found in below:
        if ("", str(found.get("title"))) in told:
            continue
        told.add(("", str(found.get("title"))))
        lines += _section(heading, name, found, definitions, told)
    return lines


def _sections_in(item: dict[str, Any], definitions: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(kind, section) of every section a key may hold; kind is empty where there is one alone."""
    for inner in (item.get("additionalProperties"), item.get("items")):
        if isinstance(inner, dict):
            return _sections_in(inner, definitions)
    if "$ref" in item:
        return _sections_in(definitions[item["$ref"].split("/")[-1]], definitions)
    if "properties" in item:
        kind = item["properties"].get("kind", {})
        # A `kind` with several values is a key like any other.
        only = "" if "enum" in kind else kind.get("const") or kind.get("default") or ""
        return [(str(only), item)]
    found: list[tuple[str, dict[str, Any]]] = []
    for choice in item.get("oneOf", item.get("anyOf", [])):
        found += _sections_in(choice, definitions)
    return found


def _values(item: dict[str, Any], definitions: dict[str, Any]) -> str:
    """What a key may hold, in words: type and range, or the choices."""
    if "$ref" in item:
        item = definitions[item["$ref"].split("/")[-1]]
    choices = item.get("enum", [item["const"]] if "const" in item else [])
    if choices:
        return ", ".join(f"`{value}`" for value in choices)
    several = item.get("anyOf", item.get("oneOf", []))
    if several:
        return " or ".join(_values(choice, definitions) for choice in several)
    kind = str(item.get("type", "any"))
    if kind == "array":
        inner = item.get("items") or item.get("prefixItems", [{}])[0]
        return "list of " + ("sections" if _sections_in(inner, definitions) else _values(inner, definitions))
    if kind == "object":
        inner = item["additionalProperties"]
        return "name: " + _values({} if inner is True else inner, definitions)
    words = {
        "any": "any value",
        "integer": "whole number",
        "string": "text",
        "boolean": "true or false",
        "null": "`null`",
    }
    return words.get(kind, kind) + _range(item)


def _range(item: dict[str, Any]) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return "".join(f" {word} {item[key]:,}".removesuffix(".0") for key, word in words.items() if key in item)


def _cell(text: str) -> str:
    # A bar would end the cell of the table.
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(document())
