"""What is read of the copy of a run, by whoever goes on with it and by who only looks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tsdf_ray.store.atomic import write_text
from tsdf_ray.store.manifest import Manifest
from tsdf_ray.store.mirror import Mirror

AT_ONCE = 8
"""Files fetched side by side."""
HEAD = ("scenario.yaml", "events.jsonl", "run.json")
"""What is fetched first; a folder with run.json has the others."""


def remote_lines(mirror: Mirror) -> list[str]:
    """The lines of a copy's manifest, in order."""
    lines = (mirror.read("manifest.jsonl") or b"").decode().splitlines(keepends=True)
    for name in mirror.names("lines"):
        if name == line_name(len(lines)):
            if (line := mirror.read(name)) is None:
                return remote_lines(mirror)  # gathered in the meantime
            lines.append(line.decode())
    return lines


def fetch(mirror: Mirror, root: Path, names: Iterable[str]) -> list[str]:
    """Copy files into a folder; those that were there. Raises NotStored when the storage does not answer."""
    return [name for name in names if mirror.get(name, root / name)]


def fetch_results(mirror: Mirror, root: Path) -> None:
    """The manifest of a copy and the samples of every match's last round: with the tables, what a report is made of."""
    write_text(root / "manifest.jsonl", "".join(remote_lines(mirror)))
    manifest = Manifest(root / "manifest.jsonl")
    finished = (manifest.of(match) for match in dict.fromkeys(entry.match for entry in manifest.entries))
    last = [entries[-1] for entries in finished if entries]
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch") as threads:
        list(threads.map(lambda entry: fetch(mirror, root, [entry.file("samples")]), last))


def line_name(number: int) -> str:
    """Where a single line of the manifest lies."""
    return f"lines/{number:08d}.jsonl"


def same_run(told: bytes, other: bytes) -> bool:
    """Do two run.json tell of one run?"""
    try:
        return _run_id(told) == _run_id(other)
    except ValueError:
        return False


def _run_id(told: bytes) -> object:
    """What tells a run from another one at the same place."""
    content = json.loads(told)
    return content.get("digest"), content.get("started")
