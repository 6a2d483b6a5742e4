"""`python -m bench [NAME]`: run one benchmark or all."""

from __future__ import annotations

import sys

from bench import overhead

BENCHES = {"overhead": overhead.main}


def main() -> None:
    """See the module."""
    for name in sys.argv[1:] or BENCHES:
        BENCHES[name]()


main()
