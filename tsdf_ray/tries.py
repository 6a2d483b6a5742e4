"""What is asked of storage is tried a few times, unless another try cannot help."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from tsdf_ray.errors import UserError

TRIES = 5
PAUSE = 1.0
"""Seconds before the second try; doubled before each further one."""
_LASTING = (PermissionError, NotADirectoryError, IsADirectoryError, pa.ArrowInvalid, pa.ArrowNotImplementedError)
_LASTING_NUMBERS = frozenset(
    {errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOTEMPTY, errno.ENAMETOOLONG}
)
_LASTING_WORDS = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|INVALID_SIGNATURE|SIGNATURE_DOES_NOT_MATCH"
    r"|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION_TOKEN|NO_SUCH_BUCKET|PERMISSION_DENIED|UNAUTHENTICATED"
    r"|Authentication ?Failed|Authorization(Failure|PermissionMismatch)|is a directory|Unable to load lib"
)
"""What another try cannot mend. Object stores say it in words: AWS in capitals, GCS and Azure by their codes."""

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """What could not be done with a place."""

    name: str
    done: str
    """`reached`, `read`, `written`, `listed`, `deleted`."""
    reason: str
    tries: int


Failed = Callable[[Failure], UserError]
"""Makes the error that is raised. Where places travel between processes it must be a function of a module."""


def tried(
    action: Callable[[], T],
    name: str,
    done: str,
    failed: Failed,
    hide: Callable[[str], str],
    wrong: tuple[type[Exception], ...],
    tries: int | None = None,
) -> T:
    """What `action` gives, after a few tries. Errors of the kinds `wrong` are raised as they are."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return action()
        except wrong:
            raise
        except (OSError, pa.ArrowException) as error:
            if attempt == (tries or TRIES) or _lasts(error):
                # Nothing is chained: a traceback would show what Arrow said.
                raise failed(Failure(name, done, reason_of(error, hide), attempt)) from None
        time.sleep(PAUSE * 2 ** (attempt - 1))


def _lasts(error: Exception) -> bool:
    number = error.errno if isinstance(error, OSError) else None
    return isinstance(error, _LASTING) or number in _LASTING_NUMBERS or bool(_LASTING_WORDS.search(str(error)))


def reason_of(error: Exception, hide: Callable[[str], str]) -> str:
    """The first line of what Arrow said, without the secrets that `hide` knows."""
    # Hidden first: a secret may have lines, too.
    return (hide(str(error)).splitlines() or [type(error).__name__])[0]
