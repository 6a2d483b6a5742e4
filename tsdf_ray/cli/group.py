"""From errors to exit codes, for all commands in one place."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from tsdf_ray.errors import MatchFailed, Stopped, UserError

FAILED, MISTAKE, INTERRUPTED, TERMINATED = 1, 2, 130, 143


class Commands(TyperGroup):
    """Commands whose named errors become one message on stderr and an exit code; bugs keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Exits with 2 (UserError), 1 (MatchFailed), 130 or 143 (stopped)."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise leave(MISTAKE, f"error: {error}") from error
        except MatchFailed as error:
            raise leave(FAILED, f"failed: {error}") from error
        except Stopped as error:
            raise leave(error.exit_code if isinstance(error, StoppedBy) else INTERRUPTED, str(error)) from error
        except KeyboardInterrupt as error:
            raise leave(INTERRUPTED, "interrupted") from error
        except BrokenPipeError as error:
            # The reader of our output (head, less) has gone; there is nobody left to tell.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAILED) from error


class StoppedBy(Stopped):
    """Stopped, and by which signal."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def leave(code: int, message: str) -> typer.Exit:
    """Print one message on stderr and give the exit to raise."""
    typer.echo(message, err=True)
    return typer.Exit(code)
