"""Where files are: one rule for the weights and photos a scenario names, and what is a URI and not a path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

FOLDER = "TSDF_FILES"
"""Environment variable: a folder of the user's with weights and data sets."""


def located(path: str | Path) -> Path:
    """A relative path is one of the current folder; what is not there is looked for below `$TSDF_FILES`.

    An absolute path, and one that is in neither place, comes back as given.
    """
    given, folder = Path(path), os.environ.get(FOLDER)
    if given.is_absolute() or given.exists() or not folder:
        return given
    elsewhere = Path(folder) / given
    return elsewhere if elsewhere.exists() else given


def is_uri(place: str | Path) -> bool:
    """Is it a URI (`s3://bucket/runs`), and not a path?"""
    return isinstance(place, str) and re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", place) is not None


def without_secrets(uri: str) -> str:
    """A URI as messages and records show it: no user, password or options."""
    return re.sub(r"//[^/@]*@", "//", uri.partition("?")[0])


def labels_of(weights: Iterable[str]) -> dict[str, str]:
    """Short names for tables, by weights: a packaged name itself, a file's stem, its folder too where stems repeat."""
    named = dict.fromkeys(weights)
    stems = {name: Path(name).stem if Path(name).suffix else name for name in named}
    found = list(stems.values())
    return {
        name: stem if found.count(stem) == 1 else f"{Path(name).parent.name}/{stem}" for name, stem in stems.items()
    }
