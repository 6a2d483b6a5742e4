"""Strict YAML: safe tags only, duplicate keys refused, and the line of every key kept for error messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tsdf_ray.errors import UserError

KeyPath = tuple[str | int, ...]
MAX_BYTES = 1 << 20


@dataclass
class YamlDocument:
    """Parsed content, and where each key stands: path of keys -> line number (from 1)."""

    source: str
    content: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def line_of(self, path: KeyPath) -> int | None:
        """Line of the longest known prefix of `path`."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


def read_yaml(path: Path) -> YamlDocument:
    """Read a YAML file. Raises UserError (file, line, remedy) when it is missing, empty, too large or not strict YAML."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES} bytes; this is not a scenario")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a scenario file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text; give the path of a scenario file") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> YamlDocument:
    """Parse YAML text; `source` names it in errors."""
    loader = yaml.SafeLoader(text)
    document = YamlDocument(source, None)
    try:
        node = loader.get_single_node()
        if node is None:
            raise UserError(f"{source}: is empty; see `tsdf-ray scenarios show quickstart` for an example")
        document.content = _build(loader, node, (), document, frozenset())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        raise UserError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from error
    finally:
        loader.dispose()
    return document


def _build(
    loader: yaml.SafeLoader, node: yaml.Node, path: KeyPath, document: YamlDocument, above: frozenset[int]
) -> Any:
    line = node.start_mark.line + 1
    document.lines.setdefault(path, line)
    if id(node) in above:
        raise UserError(f"{document.source}:{line}: an alias contains itself; write the values out")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            key_line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise UserError(f"{document.source}:{key_line}: key {key!r} is not text; put it in quotes")
            if key in mapping:
                raise UserError(f"{document.source}:{key_line}: key {key!r} is given twice; keep one")
            document.lines[(*path, key)] = key_line
            mapping[key] = _build(loader, value_node, (*path, key), document, above | {id(node)})
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [
            _build(loader, child, (*path, i), document, above | {id(node)}) for i, child in enumerate(node.value)
        ]
    return loader.construct_object(node, deep=True)
