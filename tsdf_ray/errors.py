"""The errors a user may meet. Each carries one message that names the file, key or item and the remedy.

The command line prints `UserError` as one line and exits with 2; `MatchFailed` ends one match while the others go on
(exit code 1). Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user gave us (scenario, photo, attribute file, weights, resources, folder)."""


class MatchFailed(Exception):
    """A match cannot go on for a named reason, for example a loss that became NaN during training."""


class OutOfMemory(MatchFailed):
    """A step needed more memory than the machine or its GPU has; an executor tries once more with halved
    micro-batches."""


class Stopped(Exception):
    """The user asked us to stop (SIGINT, SIGTERM); the finished rounds are on disk and `resume` goes on."""


class TakenOver(UserError):
    """Another process writes this run: nothing of it may be written here."""


class NotStored(UserError):
    """A run cannot be written on: the disk is full, the storage does not answer. What is on disk is whole, and
    `resume` goes on."""
