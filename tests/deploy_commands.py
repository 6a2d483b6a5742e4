"""Finds the `tsdf-ray` commands that a template or a page tells its reader to run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
SCRIPTS = sorted([*DEPLOY.rglob("*.sh"), *DEPLOY.rglob("*.sbatch")])
YAML = sorted(DEPLOY.rglob("*.yaml"))
TEMPLATES = [*SCRIPTS, *YAML]


def commands(path: Path) -> list[list[str]]:
    """Every `tsdf-ray COMMAND ...` of a file, as words: in a script, a comment, a console block or an entrypoint."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    if path.suffix == ".md":
        text = "\n".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL))
    shown = re.findall(r"(?<![\w/.-])(tsdf-ray (?:play|resume|submit|nodes|plan) (?:\$\{#|[^`&|#\n])+)", text)
    # Prose names a command and an option; what is to be run says more.
    return [words for words in map(shlex.split, shown) if len(words) > 3]


def command(path: Path, name: str) -> list[str]:
    """The last `tsdf-ray NAME` of a file."""
    return [words for words in commands(path) if words[1] == name][-1]


def filled(words: list[str], **values: str) -> list[str]:
    """Words with placeholders replaced."""
    for old, new in values.items():
        words = [word.replace(old, new) for word in words]
    return words
