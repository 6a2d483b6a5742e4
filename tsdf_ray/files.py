"""Where files are: one rule for the weights and photos a scenario names, and what is a URI and not a path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

FOLDER = "TSDF_FILES"
"""Environment variable: a folder of the user's with weights and data sets."""


PASSWORD = re.compile(r"((?!\[)[^/@?#:]*):(?!\d*(?:[/?#]|$))")
"""Of what follows `://`: the user, where a password comes next (and not a port)."""


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
    """A URI as messages and records show it: no user, password or options; a path stays as it is.

    Of Azure's the user stays: it names the container. A password may hold `/`, `@` or `?`, not encoded as they should.
    """
    if not is_uri(uri):
        return uri
    scheme, _, rest = uri.partition("://")
    plain = re.split(r"[?#]", rest)[0]
    if password := PASSWORD.match(rest):
        user, kept = password[1], plain if "@" in plain else rest
        place = re.split(r"[?#]", kept.rpartition("@")[2])[0] if "@" in kept else ""
    else:
        user, found, place = plain.partition("@")
        if not found or "/" in user:
            return f"{scheme}://{plain}"
    return f"{scheme}://{user}@{place}" if scheme.lower() in {"abfs", "abfss"} and user else f"{scheme}://{place}"


def has_password(uri: str) -> bool:
    """Does a URI carry a password?"""
    return is_uri(uri) and PASSWORD.match(uri.partition("://")[2]) is not None


def labels_of(weights: Iterable[str]) -> dict[str, str]:
    """Short names for tables, by weights: a packaged name itself, a file's stem, its folder too where stems repeat."""
    named = dict.fromkeys(weights)
    stems = {name: Path(name).stem if Path(name).suffix else name for name in named}
    found = list(stems.values())
    return {
        name: stem if found.count(stem) == 1 else f"{Path(name).parent.name}/{stem}" for name, stem in stems.items()
    }
