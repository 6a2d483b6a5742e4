"""From a name or a file to a checked `Scenario`, with errors that name file, line, key and the remedy."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tsdf_ray.errors import UserError
from tsdf_ray.scenario.explain import explained
from tsdf_ray.scenario.keys import did_you_mean
from tsdf_ray.scenario.model import Scenario
from tsdf_ray.scenario.yamlfile import YamlDocument, parse_yaml, read_yaml


def packaged_scenarios() -> dict[str, Traversable]:
    """The library that ships with the package: name (folders with '/') -> YAML resource, sorted by name."""
    found: dict[str, Traversable] = {}

    def walk(folder: Traversable, prefix: str) -> None:
        for item in folder.iterdir():
            if item.is_dir() and not item.name.startswith("__"):
                walk(item, f"{prefix}{item.name}/")
            elif item.name.endswith(".yaml"):
                found[prefix + item.name.removesuffix(".yaml")] = item

    # By name only: the core does not import the scenario library.
    walk(files("scenarios"), "")
    return dict(sorted(found.items()))


def find_scenario(source: str | Path) -> YamlDocument:
    """The YAML of a packaged scenario (by name) or of a file. Raises UserError when there is neither."""
    library = packaged_scenarios()
    name = str(source).removesuffix(".yaml")
    if name in library and not Path(source).is_file():
        return parse_yaml(library[name].read_text(encoding="utf-8"), f"{name}.yaml")
    path = Path(source)
    if not path.exists() and path.suffix not in {".yaml", ".yml"}:
        hint = did_you_mean(name, library)
        raise UserError(f"{source}: no such scenario.{hint} Packaged ones: {', '.join(library)}; or give a .yaml file")
    return read_yaml(path)


def load_scenario(source: str | Path, changes: tuple[str, ...] = ()) -> Scenario:
    """Load, apply `changes` (`dotted.key=value`), and check. See `Scenario.load`."""
    document = find_scenario(source)
    if document.content is None:
        raise UserError(f"{document.source}: is empty; see `tsdf-ray scenarios show quickstart` for an example")
    if not isinstance(document.content, dict):
        raise UserError(f"{document.source}: is not a mapping of keys; see `tsdf-ray scenarios show quickstart`")
    for change in changes:
        apply_change(document, change)
    try:
        return Scenario.model_validate(document.content)
    except ValidationError as error:
        raise UserError("\n".join(_messages(error, document))) from error


def apply_change(document: YamlDocument, change: str) -> None:
    """Put `dotted.key=value` (a YAML value) into a document. Raises UserError when it is no such thing."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise UserError(f"--set {change}: write dotted.key=value, for example rounds=2")
    path = key.split(".")
    value = parse_yaml(text, f"--set {change}").content if text.strip() else None
    at: Any = document.content
    for depth, step in enumerate(path[:-1]):
        # A section that is absent, or left empty, begins here.
        if at.get(step) is None:
            at[step] = {}
        at = at[step]
        if not isinstance(at, dict):
            raise UserError(f"--set {change}: {'.'.join(path[: depth + 1])} is not a section; it has no keys")
    at[path[-1]] = value
    document.changed[tuple(path)] = f"--set {change}"


def _messages(error: ValidationError, document: YamlDocument) -> list[str]:
    return [
        f"{document.where(path)}: {'.'.join(map(str, path)) or 'scenario'}: {text}"
        for path, text in explained(error, document.content)
    ]
