"""`python -m bench [NAME [options]]`: run one benchmark or all."""

from __future__ import annotations

import importlib
import sys

BENCHES = ("overhead", "ensemble", "defences", "search", "control", "sizing", "groups", "store", "collections")


def main() -> None:
    """See the module."""
    name, *options = sys.argv[1:] or ("",)
    if name and name not in BENCHES:
        sys.exit(f"no benchmark {name!r}; there are: {', '.join(BENCHES)}")
    for bench in [name] if name else BENCHES:
        importlib.import_module(f"bench.{bench}").main(options)


main()
