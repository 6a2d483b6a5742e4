"""What lies where a run or a search is to be: nothing, one of the same scenario, or something else."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, Literal

from tsdf_ray.errors import NotStored, UserError
from tsdf_ray.files import is_uri
from tsdf_ray.scenario import Scenario
from tsdf_ray.store.lock import take_lock
from tsdf_ray.store.run import Run

FIRST_FILES = frozenset({"lock", "scenario.yaml", "events.jsonl"})
"""What a run directory holds before run.json makes it a run."""

WORDS = {"race": "run", "search": "search"}
"""Kinds of runs as messages call them."""


def begun_run(game: Scenario, out: str | Path | None, kind: Literal["race", "search"] = "race") -> Run | None:
    """The run of `game` at `out`, None when it has still to begin.

    A job that is started again must be able to go on whenever it was killed, so a folder that was being made when that
    happened is cleared. Raises UserError when `out` is missing, of another kind, or of another scenario,
    and NotStored when the storage does not answer.
    """
    if out is None:
        raise UserError("--resume needs --out: the folder of the run to begin or to go on with")
    try:
        run = Run(out)
    except NotStored:
        raise  # what lies there is not known
    except UserError:
        if not is_uri(out):
            if (Path(out) / "run.json").exists():
                raise  # it is damaged, and that is said
            _clear_half_made(Path(out))
        return None
    if (found := run.info.get("kind", "race")) != kind:
        go_on = f"`tsdf-ray resume {shlex.quote(run.place)}`"
        raise UserError(f"{run.place}: is a {WORDS.get(found, found)}; go on with {go_on}, or choose another --out")
    if not _same(run.info.get("content"), json.loads(game.as_json()), kind):
        raise UserError(
            f"{run.place}: is a {WORDS[kind]} of another scenario ({run.info.get('scenario')}, digest "
            f"{str(run.info.get('digest'))[:12]}; asked for: {game.name}, {game.digest[:12]}); choose another --out"
        )
    return run


def _same(begun: Any, asked: dict[str, Any], kind: str) -> bool:
    """Equal but for the resources of a race, which decide no result: it may go on on another machine."""
    free = {"resources": None} if kind == "race" else {}
    return isinstance(begun, dict) and begun | free == asked | free


def _clear_half_made(root: Path) -> None:
    """Remove the first files of a run that was killed before it was one; anything else is left alone."""
    if not root.is_dir() or (root / "run.json").exists():
        return
    found = {path.name for path in root.iterdir()}
    ours = {name for name in found if name in FIRST_FILES or name.startswith((".run.json", ".scenario.yaml"))}
    if "lock" not in found or found != ours:
        return
    # Held: someone is making it at this moment. Raises UserError that says so.
    with take_lock(root):
        for name in ours - {"lock"}:
            (root / name).unlink()
        (root / "lock").unlink()
