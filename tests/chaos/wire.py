"""A slow and lossy cable between two network namespaces: for kernels that cannot be told to lose packets (netem).

    python wire.py NAMESPACE INTERFACE NAMESPACE INTERFACE

Makes both interfaces (TAP) and says "ready"; carries frames from one to the other, both ways, each after the delay that
was last read from stdin, and loses a share of them: lines "SECONDS SHARE". At the end of stdin it says how many frames
it carried and lost since the first such line, and ends; the interfaces go with it.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import selectors
import struct
import sys
import time
from itertools import count

TUNSETIFF, TAP, NO_HEADER = 0x400454CA, 0x2, 0x1000
CLONE_NEWNET = 0x40000000
FRAME = 65536


def enter(namespace: str) -> None:
    """This thread, and those it starts from now on, are in a namespace that `ip netns` knows."""
    file = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(file, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace}")
    finally:
        os.close(file)


def open_tap(namespace: str, interface: str) -> int:
    """The file whose reads and writes are the frames of a new interface."""
    enter(namespace)
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", interface.encode(), TAP | NO_HEADER))
    return tap


class Wire:
    """Frames under way between two TAPs."""

    def __init__(self, first: int, second: int) -> None:
        self._other = {first: second, second: first}
        self._delay = self._share = 0.0
        self._carried = self._lost = 0
        self._chance, self._number = random.Random(0), count()
        self._way: list[tuple[float, int, int, bytes]] = []
        self._ready = selectors.DefaultSelector()
        for file in (first, second, 0):
            self._ready.register(file, selectors.EVENT_READ)

    def run(self) -> tuple[int, int]:
        """Until the end of stdin: frames carried, and lost."""
        while True:
            wait = max(0.0, self._way[0][0] - time.monotonic()) if self._way else None
            for key, _ in self._ready.select(wait):
                if key.fd:
                    self._take(key.fd)
                elif line := sys.stdin.readline():
                    self._delay, self._share = map(float, line.split())
                    self._carried = self._lost = 0
                else:
                    return self._carried, self._lost
            now = time.monotonic()
            while self._way and self._way[0][0] <= now:
                _, _, to, frame = heapq.heappop(self._way)
                try:
                    os.write(to, frame)
                except OSError:  # an interface that is down takes none
                    self._lost += 1

    def _take(self, tap: int) -> None:
        try:
            frame = os.read(tap, FRAME)
        except BlockingIOError:
            return
        if self._chance.random() < self._share:
            self._lost += 1
            return
        self._carried += 1
        heapq.heappush(self._way, (time.monotonic() + self._delay, next(self._number), self._other[tap], frame))


def main() -> None:
    """See the module."""
    _, *ends = sys.argv
    wire = Wire(open_tap(*ends[:2]), open_tap(*ends[2:]))
    print("ready", flush=True)
    print(*wire.run(), flush=True)


if __name__ == "__main__":
    main()
