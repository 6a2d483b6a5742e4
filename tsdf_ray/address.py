"""Which Ray cluster a command joins: the one place where RAY_ADDRESS is read."""

from __future__ import annotations

import os

from tsdf_ray.errors import UserError

LOCAL = "local"
"""As `--address` or RAY_ADDRESS: a cluster of our own on this machine, whatever else is set."""


def cluster_address(given: str | None, executor: str = "ray") -> str | None:
    """The cluster to join: `given`, else RAY_ADDRESS (Ray sets it inside its jobs), else None: one is started here.

    With an executor that uses no cluster RAY_ADDRESS means nothing. Raises UserError for an empty `given`, and for
    the address of a dashboard, which takes jobs and cannot be joined.
    """
    if given is None and executor == "ray":
        found, where = os.environ.get("RAY_ADDRESS", "").strip() or None, "RAY_ADDRESS"
    else:
        found, where = given, "--address"
    if given is not None and not given.strip():
        # A variable that is not set: to start a cluster here is not what was meant.
        raise UserError(f"--address: is empty; give the head's address, HOST:6379, or `{LOCAL}`")
    if found == LOCAL:
        return None
    if found is not None and _is_web(found):
        raise UserError(
            f"{where} {found}: is a dashboard, which takes jobs (`tsdf-ray submit`) and cannot be joined; "
            f"give the head's own address, HOST:6379, or `{LOCAL}`"
        )
    return found


def jobs_address(given: str | None) -> str:
    """The dashboard that takes jobs: `given`, else RAY_API_SERVER_ADDRESS or RAY_ADDRESS, as `ray job submit` does.

    Raises UserError when there is none, or when it is no http address.
    """
    found, where = given, "--address"
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        if not found:
            found, where = os.environ.get(name, "").strip(), name
    if not found:
        raise UserError("--address: say where the cluster's dashboard is, for example http://127.0.0.1:8265")
    if not _is_web(found):
        raise UserError(
            f"{where} {found}: jobs go to the cluster's dashboard; give its address, for example http://HEAD:8265"
        )
    return found.rstrip("/")


def _is_web(address: str) -> bool:
    return address.startswith(("http://", "https://"))
