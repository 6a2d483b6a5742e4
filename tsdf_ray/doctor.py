"""Is this installation fit to play? Every finding says what is wrong and what to do; nothing is changed."""

from __future__ import annotations

import importlib.util
import os
import platform
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from tsdf_ray.errors import UserError

OURS = ("tsdf_ray", "actors", "tune", "scenarios")
"""Top-level packages of this distribution; three of the names are common enough to be taken by another."""
PYTHON = (3, 11)

Level = Literal["good", "warning", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    subject: str
    level: Level
    text: str


def examine() -> list[Finding]:
    """Look at everything, in a fixed order."""
    looks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _versions,
        _names,
        _machine,
        _weights,
        lambda: ray_token(os.environ, Path.home()),
    ]
    return [finding for look in looks for finding in look()]


def _python() -> Iterator[Finding]:
    good = sys.version_info >= PYTHON
    wanted = ".".join(map(str, PYTHON))
    yield Finding(
        "Python", "good" if good else "bad", platform.python_version() + ("" if good else f", needs {wanted}")
    )


def _versions() -> Iterator[Finding]:
    """Installed versions against this distribution's ranges, and against the tested pins where they are at hand."""
    pins = read_pins(Path(__file__).resolve().parents[1] / "constraints.txt")
    for line in metadata.requires("tsdf-ray") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        yield check_version(requirement, pins.get(requirement.name.lower()))


def check_version(requirement: Requirement, pin: str | None) -> Finding:
    """One requirement: missing or outside its range is bad, another version than the tested one a warning."""
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Finding(requirement.name, "bad", f"is missing; install {requirement}")
    if not requirement.specifier.contains(found, prereleases=True):
        return Finding(requirement.name, "bad", f"{found}, needs {requirement.specifier}; install that version")
    if pin is not None and found.split("+")[0] != pin:
        return Finding(requirement.name, "warning", f"{found}, tested with {pin}; `pip install -c constraints.txt`")
    return Finding(requirement.name, "good", found)


def read_pins(path: Path) -> dict[str, str]:
    """`name==version` lines of a constraints file, names in lower case; empty when there is none."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("#")[0].strip().split("==") for line in lines if "==" in line.split("#")[0]]
    return {name.strip().lower(): version.strip() for name, version in pairs}


def _names() -> Iterator[Finding]:
    root = Path(__file__).resolve().parents[1]
    for name in OURS:
        yield check_origin(name, root)


def check_origin(name: str, root: Path) -> Finding:
    """Does `import name` find our package, the one under `root`?"""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return Finding(f"package {name}", "bad", "cannot be found; install tsdf-ray again")
    origin = Path(spec.origin).resolve()
    if origin != root / name / "__init__.py":
        text = f"import {name} finds {origin}, not ours; uninstall that package, or leave its folder out of PYTHONPATH"
        return Finding(f"package {name}", "bad", text)
    return Finding(f"package {name}", "good", "ours")


def _machine() -> Iterator[Finding]:
    import psutil
    import torch

    from tsdf_ray.game.supply import local_supply

    supply = local_supply()
    yield Finding("CPUs", "good", f"{supply.cpus:g} for this process")
    free = psutil.virtual_memory().available / 2**30
    low = free < 4
    yield Finding(
        "memory", "warning" if low else "good", f"{free:.1f} GiB free" + ("; the demo needs up to 4" if low else "")
    )
    if supply.gpus:
        for index in range(int(supply.gpus)):
            gpu = torch.cuda.get_device_properties(index)
            yield Finding(f"GPU {index}", "good", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB")
    else:
        yield Finding("GPUs", "good", "none; matches play on CPUs")


def _weights() -> Iterator[Finding]:
    """Loads all packaged weights: their digests are checked on the way."""
    from tsdf_ray.detectors import load_detector
    from tsdf_ray.detectors.weights import PACKAGED
    from tsdf_ray.faces.sample import sample_source
    from tsdf_ray.faces.source import Tally
    from tsdf_ray.generators import load_family
    from tsdf_ray.judges import load_judge
    from tsdf_ray.scenario import Scenario

    fields = Scenario.model_fields
    things: dict[str, Callable[[], object]] = {
        f"detector {name}": lambda name=name: load_detector(name)  # type: ignore[misc]
        for name in PACKAGED
    }
    generator, judge = str(fields["generator"].default), str(fields["judge"].default)
    things[f"generator {generator}"] = lambda: load_family(generator)
    things[f"judge {judge}"] = lambda: load_judge(judge)
    things["sample faces"] = lambda: sample_source(Tally())
    for name, load in things.items():
        try:
            load()
        except UserError as error:
            yield Finding(name, "bad", str(error))
        else:
            yield Finding(name, "good", "loads, digest as recorded" if name != "sample faces" else "present")


def ray_token(environment: os._Environ[str] | dict[str, str], home: Path) -> Iterator[Finding]:
    """Ray's authentication mode, and who may read the token file. The token itself is never read."""
    mode = environment.get("RAY_AUTH_MODE", "").lower() or "token"
    if mode == "disabled":
        text = "disabled by RAY_AUTH_MODE: whoever reaches a cluster's ports runs code on it; unset it for clusters"
        yield Finding("Ray authentication", "warning", text)
        return
    yield Finding("Ray authentication", "good", mode)
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or home / ".ray" / "auth_token")
    if environment.get("RAY_AUTH_TOKEN") or not path.exists():
        where = "in RAY_AUTH_TOKEN" if environment.get("RAY_AUTH_TOKEN") else f"none yet at {path}; Ray makes one"
        yield Finding("Ray token", "good", where)
        return
    allowed = stat.S_IMODE(path.stat().st_mode)
    if allowed & 0o077:
        yield Finding("Ray token", "bad", f"{path} has mode {allowed:04o}, others may read it: `chmod 600 {path}`")
    else:
        yield Finding("Ray token", "good", f"{path}, mode {allowed:04o}")
