"""Where the files a scenario names are looked for: one rule for weights and photos."""

from __future__ import annotations

import os
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


def labels_of(weights: Iterable[str]) -> dict[str, str]:
    """Short names for tables, by weights: a packaged name itself, a file's stem, its folder too where stems repeat."""
    named = dict.fromkeys(weights)
    stems = {name: Path(name).stem if Path(name).suffix else name for name in named}
    found = list(stems.values())
    return {
        name: stem if found.count(stem) == 1 else f"{Path(name).parent.name}/{stem}" for name, stem in stems.items()
    }
