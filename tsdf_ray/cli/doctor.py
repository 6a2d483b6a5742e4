"""`tsdf-ray doctor`."""

from __future__ import annotations

import typer

from tsdf_ray.cli.group import FAILED


def doctor() -> None:
    """Check this installation.

    Versions, machine, packaged weights, Ray's token, clashing package names.
    """
    from tsdf_ray.doctor import examine

    findings = examine()
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        typer.echo(f"{finding.level:<7}  {finding.subject:<{width}}  {finding.text}")
    bad = sum(finding.level == "bad" for finding in findings)
    typer.echo(f"{bad} bad, {sum(finding.level == 'warning' for finding in findings)} warnings")
    if bad:
        raise typer.Exit(FAILED)
