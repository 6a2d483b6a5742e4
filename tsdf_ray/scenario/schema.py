"""The JSON Schema of a scenario, for editors and other programs; built from the same models that check it."""

from __future__ import annotations

from typing import Any

from tsdf_ray.defenders import DEFENDERS
from tsdf_ray.scenario.entries import DefenderEntry
from tsdf_ray.scenario.model import Scenario


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a scenario file. It knows the built-in roles' keys; plug-ins' are checked by `check`."""
    schema = Scenario.model_json_schema(mode="validation")
    definitions: dict[str, Any] = schema["$defs"]
    entry = DefenderEntry.model_json_schema()["properties"]
    choices = []
    for kind, defence in DEFENDERS.items():
        # A defender's section is flat in the file: its own keys, and those of its kind.
        config = defence.config_class.model_json_schema()
        definitions |= config.pop("$defs", {})
        keys = {"kind": {"const": kind, "description": entry["kind"]["description"]}}
        keys |= {name: value for name, value in entry.items() if name not in {"kind", "config"}}
        flat = {"type": "object", "title": kind, "additionalProperties": False, "required": ["kind"]}
        choices.append(flat | {"properties": keys | config["properties"]})
        choices[-1]["required"] += config.get("required", [])
    definitions["DefenderEntry"] = {"oneOf": choices}
    definitions.pop("DefenderConfig", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "tsdf-ray scenario"} | {
        key: value for key, value in schema.items() if key not in {"title", "description"}
    }
