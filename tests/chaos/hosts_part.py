"""A match on a cluster of several hosts, whose cables fail: run by test_hosts_part.py as a script.

    unshare --net --mount --pid --uts --fork --kill-child --mount-proc python hosts_part.py CASE FOLDER

Prints one JSON line: see `nodes.play`, and what `Case` adds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

from hosts import Host, Hosts, gone, round_trip, until
from nodes import mended, node_of, play
from saboteur import Blow, Saboteur, events, small_game

SPREAD = ("resources.placement=spread", "resources.cpus_per_match=2")
"""The attacker sits on another host than defender and evaluator."""
GROUP = ("micro_batch=2", "resources.workers={attacker: 2}", "resources.cpus_per_match=2")
"""Two attackers, each on a host of its own."""
SHORT_SECONDS = 2.5
"""Less than it takes until a node is given up."""
DELAY_SECONDS, LOST_SHARE = 0.05, 0.015
STEP_SECONDS = 20
LONGEST_SECONDS = 120.0


class Case:
    """One blow, and what was seen of it (`found`)."""

    def __init__(self, name: str, run: Path) -> None:
        self.name, self._run = name, run
        self.hosts = Hosts(2 if name in {"group", "group-unmet"} else 3, wired=name == "slow")
        self.found: dict[str, Any] = {}
        self._over, self._ended = False, Event()
        strike = getattr(self, f"_{name.rpartition('-')[2]}", None)
        rank = int(name.startswith("group"))
        blow = Blow("attacker", "retrain", 1, 0.2, rank, strike=strike) if strike else None
        if name == "slow":
            blow = Blow("defender", "learn", 1, strike=self._slow)
        self._saboteur = Saboteur(run, *([blow] if blow else []))

    def play(self) -> None:
        """The match, and what is left when it is over."""
        if self.name == "group-unmet":
            self.hosts.part(*self.hosts.hosts.values())
            Thread(target=self._join_again, daemon=True).start()
        changes = GROUP if self.name.startswith("group") else SPREAD
        changes += (f"resources.step_seconds={STEP_SECONDS}",) if self.name == "group-parted" else ()
        self.found |= play(small_game(*changes), self._run, self._saboteur, self.hosts.address)
        self._over = True
        placed = [line for line in events(self._run / "events.jsonl") if line.get("event") == "role placed"]
        self.found["placed"] = [
            [line["role"], line["rank"], self.hosts.host_of(line["node"]).name, line["pid"]] for line in placed
        ]
        if self.name.endswith("pulled"):
            self.found["left_over_ended"] = self._ended.wait(LONGEST_SECONDS)
        self.found["alive"] = sorted(self.hosts.alive())
        counted = self.hosts.end()
        if counted:
            self.found |= {"frames": counted[0], "frames_lost": counted[1]}

    def _host(self, pid: int) -> Host:
        host = self.hosts.host_of(node_of(self._run, pid))
        self.found["struck"] = host.name
        return host

    def _pulled(self, pid: int) -> None:
        """Put back while the match goes on elsewhere: what was cut off may have an answer ready. Does it end?"""
        host = self._host(pid)
        self.hosts.pull(host)
        self.found["cut"] = round_trip(host) is None
        until(lambda: mended(self._saboteur) or self._over, LONGEST_SECONDS)
        self.found["worked_on_alone"] = not gone(pid)
        self.hosts.put_back(host)
        self.found["back_during_match"] = not self._over
        self.found["ended"] = until(lambda: gone(pid) and host.process.poll() is not None, LONGEST_SECONDS)
        if self.found["ended"] is not None:
            self._ended.set()

    def _short(self, pid: int) -> None:
        host = self._host(pid)
        self.hosts.pull(host)
        began = time.monotonic()
        self.found["cut"] = round_trip(host) is None
        time.sleep(SHORT_SECONDS - (time.monotonic() - began))
        self.hosts.put_back(host)
        self.found["back_during_match"] = not self._over

    def _slow(self, pid: int) -> None:
        host = self._host(pid)
        quick = round_trip(host)
        self.hosts.slow(DELAY_SECONDS, LOST_SHARE)
        self.found["round_trip"] = [quick, round_trip(host)]

    def _parted(self, pid: int) -> None:
        """The two do not reach each other, though the head reaches both; until that was noticed."""
        first, second = (host for address, host in sorted(self.hosts.hosts.items()) if host.name in self._attackers())
        self.found["struck"] = f"{first.name} from {second.name}"
        self.hosts.part(first, second)
        until(lambda: mended(self._saboteur) or self._over, LONGEST_SECONDS)
        self.hosts.part(first, second, parted=False)

    def _join_again(self) -> None:
        """The hosts, once it was noticed that they are apart."""
        self.found["noticed_unmet"] = until(lambda: mended(self._saboteur) or self._over, LONGEST_SECONDS)
        self.hosts.part(*self.hosts.hosts.values(), parted=False)

    def _attackers(self) -> set[str]:
        placed = [line for line in events(self._run / "events.jsonl") if line.get("role") == "attacker"]
        return {self.hosts.host_of(line["node"]).name for line in placed if line.get("event") == "role placed"}


def main() -> None:
    """See the module."""
    case = Case(sys.argv[1], Path(sys.argv[2]) / "run")
    case.play()
    print(json.dumps(case.found), flush=True)


if __name__ == "__main__":
    main()
