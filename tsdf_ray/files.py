"""Where files are: one rule for the weights and photos a scenario names, and what is a URI and not a path."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote, unquote_plus

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
    """A URI as messages and records show it: no user, password or options; a path stays as it is.

    Of Azure's the user stays: it names the container.
    """
    if not is_uri(uri):
        return uri
    scheme, user, place, _ = _uri_parts(uri)
    container = user.partition(":")[0] if scheme.lower() in _WITH_CONTAINERS and place else ""
    return f"{scheme}{container}@{place}" if container else scheme + place


def has_password(uri: str) -> bool:
    """Does a URI carry a password?"""
    return is_uri(uri) and ":" in _uri_parts(uri)[1]


def hider(uri: str) -> Callable[[str], str]:
    """What hides, in texts of others, the user, password and options of a URI, however they are escaped there.

    Of options, those that say where and how (`region`) stay. Other URIs in a text lose their secrets, too.
    """
    scheme, user, _, options = _uri_parts(uri)
    found = {user, options, *user.split(":", 1)}
    if scheme.lower() in _WITH_CONTAINERS:
        found.discard(user.partition(":")[0])
    for option in options.split("&"):
        name, _, value = option.partition("=")
        if name not in _OPEN_OPTIONS or "@" in unquote(value):
            found.add(value)
    plain = {form for secret in found for form in (secret, unquote(secret), unquote_plus(secret))}
    forms = {form for secret in plain for form in (secret, quote(secret, safe=""), quote(secret))} - {""}
    # The longest first: one may be part of another. A short one (`eu`, `1`) stands in other words by chance.
    words = [
        re.escape(f) if len(f) > 3 else rf"(?<!\w){re.escape(f)}(?!\w)" for f in sorted(forms, key=len, reverse=True)
    ]
    secrets = re.compile("|".join(words) or "(?!)", re.IGNORECASE)
    return partial(_hidden, secrets)


def _hidden(secrets: re.Pattern[str], text: str) -> str:
    return _URI.sub(lambda found: without_secrets(found[0]), secrets.sub("***", text))


_URI = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"<>]*")
_OPEN_OPTIONS = frozenset({"region", "scheme", "endpoint_override", "allow_bucket_creation", "replication"})
_WITH_CONTAINERS = frozenset({"abfs://", "abfss://"})
_WITH_PORTS = frozenset({"hdfs", "viewfs", "http", "https"})


def _uri_parts(uri: str) -> tuple[str, str, str, str]:
    """(`s3://`, user and password, bucket and path, options).

    A password in which `/` or `?` were not escaped makes no URI, but must not be shown in the message that says so.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return "", "", *_options_cut(uri)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    end = authority.rfind("@")
    port = scheme in _WITH_PORTS and re.fullmatch(r"(\[.*\]|[^:]*):\d*", authority)
    if end < 0 and ":" in authority and not port:
        end = rest.rfind("@")
        if end < 0:  # a user and a password, and no place
            return f"{scheme}://", authority, *_options_cut(rest[len(authority) :])
    return f"{scheme}://", rest[: max(end, 0)], *_options_cut(rest[end + 1 :])


def _options_cut(text: str) -> tuple[str, str]:
    before, *options = re.split(r"[?#]", text, maxsplit=1)
    return before, "".join(options)


def labels_of(weights: Iterable[str]) -> dict[str, str]:
    """Short names for tables, by weights: a packaged name itself, a file's stem, its folder too where stems repeat."""
    named = dict.fromkeys(weights)
    stems = {name: Path(name).stem if Path(name).suffix else name for name in named}
    found = list(stems.values())
    return {
        name: stem if found.count(stem) == 1 else f"{Path(name).parent.name}/{stem}" for name, stem in stems.items()
    }
