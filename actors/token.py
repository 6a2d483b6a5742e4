"""Ray's token: used where there is one, and what to say where it is missing or wrong. Its text is never shown."""

from __future__ import annotations

import os
from pathlib import Path

from tsdf_ray.errors import UserError

REMEDY = (
    "put the cluster's token in RAY_AUTH_TOKEN, or the path of its file in RAY_AUTH_TOKEN_PATH (RAY_AUTH_MODE=token)"
)


def source() -> str | None:
    """Where our token comes from, None when there is none. Raises UserError: the file named is missing or empty."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        if path.stat().st_size:
            return str(path)
    except OSError as error:
        if named:
            raise UserError(f"RAY_AUTH_TOKEN_PATH {path}: cannot be read ({error.strerror}); {REMEDY}") from error
        return None
    if named:
        raise UserError(f"RAY_AUTH_TOKEN_PATH {path}: is empty; {REMEDY}")
    return None


def use_token() -> None:
    """Send our token to the cluster we join, if we have one and RAY_AUTH_MODE does not say otherwise.

    Ray itself does so for a local cluster, but not when it joins one: it is refused then, token or not.
    """
    if os.environ.get("RAY_AUTH_MODE") is not None or source() is None:
        return
    os.environ["RAY_AUTH_MODE"] = "token"
    from ray._raylet import Config  # type: ignore[attr-defined]

    # Ray reads the environment when it is imported.
    Config.initialize("")
