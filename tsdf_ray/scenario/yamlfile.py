"""Strict YAML: plain values only, duplicate keys refused, and the line of every key kept for error messages.

A scenario may come from a stranger: no tag can name a Python object, and aliases cannot blow a small file up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tsdf_ray.errors import UserError

KeyPath = tuple[str | int, ...]
MAX_BYTES = 1 << 20
MAX_VALUES = 100_000
"""Values of a document after aliases are written out."""
PLAIN = ("null", "bool", "int", "float", "str", "map", "seq")


@dataclass
class YamlDocument:
    """Parsed content, and where each key stands: path of keys -> line number (from 1)."""

    source: str
    text: str
    content: Any = None
    values: int = 0
    lines: dict[KeyPath, int] = field(default_factory=dict)
    changed: dict[KeyPath, str] = field(default_factory=dict)
    """Keys that did not come from the file, and what set them."""

    def where(self, path: KeyPath) -> str:
        """`file:line` of a key, or what set it, for messages."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.changed:
                return self.changed[path[:length]]
        line = self.line_of(path)
        return f"{self.source}:{line}" if line else self.source

    def line_of(self, path: KeyPath) -> int | None:
        """Line of the longest known prefix of `path`."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


def read_yaml(path: Path) -> YamlDocument:
    """Read a YAML file. Raises UserError (file, line, remedy): missing, empty, too large, or not strict YAML."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is not a file; give the path of a scenario file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES} bytes; this is not a scenario")
        text = raw.decode("utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a scenario file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text; give the path of a scenario file") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> YamlDocument:
    """Parse YAML text; `source` names it in errors."""
    document = YamlDocument(source, text)
    try:
        # The reader refuses control characters on construction.
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError as error:
        raise UserError(f"{source}: not valid YAML: {error}") from error
    try:
        node = loader.get_single_node()
        if node is None:
            raise UserError(f"{source}: is empty; see `tsdf-ray scenarios show quickstart` for an example")
        document.content = _build(loader, node, (), document, frozenset())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        raise UserError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise UserError(f"{source}: is nested too deeply; a scenario has a few levels") from error
    except ValueError as error:
        # PyYAML's own constructors let these through: 2026-13-45 looks like a date, 0x_ like a number.
        raise UserError(f"{source}: a value cannot be read ({error}); put text in quotes") from error
    finally:
        loader.dispose()
    return document


def _build(
    loader: yaml.SafeLoader, node: yaml.Node, path: KeyPath, document: YamlDocument, above: frozenset[int]
) -> Any:
    line = node.start_mark.line + 1
    document.lines.setdefault(path, line)
    document.values += 1
    if document.values > MAX_VALUES:
        raise UserError(f"{document.source}:{line}: more than {MAX_VALUES} values; write fewer aliases")
    if node.tag.removeprefix("tag:yaml.org,2002:") not in PLAIN:
        short = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise UserError(f"{document.source}:{line}: {short} values are not allowed; put text in quotes, leave tags out")
    if id(node) in above:
        raise UserError(f"{document.source}:{line}: an alias contains itself; write the values out")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{document.source}:{key_line}: a key is not text; write key: value")
            key = loader.construct_object(key_node)
            if not isinstance(key, str):
                raise UserError(f"{document.source}:{key_line}: key {key_node.value!r} is not text; put it in quotes")
            if key in mapping:
                raise UserError(f"{document.source}:{key_line}: key {key!r} is given twice; keep one")
            document.lines[(*path, key)] = key_line
            mapping[key] = _build(loader, value_node, (*path, key), document, above | {id(node)})
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, child, (*path, i), document, above | {id(node)}) for i, child in enumerate(node.value)]
    return loader.construct_object(node, deep=True)
