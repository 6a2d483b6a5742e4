"""A match on a cluster of several real nodes of this host, of which some die: run by test_nodes_die.py as a script.

    python nodes.py CASE FOLDER

The head has no CPU for roles, so the driver's node never dies with them. Each node has its own temporary folder. Prints
one JSON line, see `play`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from saboteur import Blow, Saboteur, events, figures, kill, small_game

from tsdf_ray import api
from tsdf_ray.errors import Stopped, UserError
from tsdf_ray.scenario import Scenario

QUICK = {
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 3,
}
"""A node that stops answering is given up sooner than after a quarter of a minute, but not on a busy machine alone."""
STORE = 150 << 20


class Nodes:
    """Head and nodes."""

    def __init__(self, count: int) -> None:
        # Short: the path of a socket has at most 107 characters.
        self.folder, self._made = Path(tempfile.mkdtemp(prefix="nodes-", dir="/tmp")), 0
        head: dict[str, Any] = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
        head |= {"temp_dir": str(self.folder / "head"), "_system_config": QUICK}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.add() for _ in range(count)]
        ray.init(address=self.cluster.address, log_to_driver=False)

    def add(self) -> Any:
        """One more node of one CPU."""
        self._made += 1
        folder = str(self.folder / str(self._made))
        return self.cluster.add_node(num_cpus=1, object_store_memory=STORE, temp_dir=folder)

    def strike_head(self) -> None:
        """Kill -9 of the head's control store (GCS) and raylet: this process ends too."""
        for process in ("gcs_server", "raylet"):
            kill(int(self.cluster.head_node.all_processes[process][0].process.pid))

    def strike(self, node_id: str, number: int) -> int:
        """A signal to the raylet of a node."""
        node = next(node for node in self.nodes if node.node_id == node_id)
        pid = int(node.all_processes["raylet"][0].process.pid)
        os.kill(pid, number)
        return pid


def node_of(run: Path, pid: int) -> str:
    """Ray's id of the node on which a role's worker was placed."""
    placed = [line for line in events(run / "events.jsonl") if line.get("event") == "role placed"]
    return str(next(line["node"] for line in reversed(placed) if line["pid"] == pid))


def mended(saboteur: Saboteur) -> bool:
    """Has a role been built anew?"""
    return any("built anew" in note for note in saboteur.notes)


def play(game: Scenario, run: Path, saboteur: Saboteur, address: str | None = None) -> dict[str, Any]:
    """Status, reasons of matches that failed, notes, and seconds from the blow to the first note of mending and to the
    first end of a step that was issued again."""
    try:
        played = api.play(game, run, address=address, progress=saboteur, report=False)
        outcome: dict[str, Any] = {"status": played.status, "failed": played.info["failed"]}
    except (UserError, Stopped) as error:
        outcome = {"status": type(error).__name__, "failed": {"": str(error)}}
    noticed, back = next(iter(figures(saboteur, run)), (None, None))
    return outcome | {"notes": saboteur.notes, "noticed": noticed, "back": back}


def main() -> None:
    """See the module."""
    case, folder = sys.argv[1], Path(sys.argv[2])
    run, hit = folder / "run", list[int]()
    nodes = Nodes(1 if case in {"no-spare", "added-later", "head"} else 2)

    def strike(pid: int) -> None:
        if case == "head":
            nodes.strike_head()
        else:
            hit.append(nodes.strike(node_of(run, pid), signal.SIGSTOP if case == "stopped" else signal.SIGKILL))

    saboteur = Saboteur(run, Blow("attacker", "retrain", 2 if case == "head" else 1, strike=strike))
    game = small_game(f"resources.wait_seconds={8 if case == 'no-spare' else 120}")
    with ThreadPoolExecutor(1) as thread:  # Ray starts nodes in the main thread alone
        playing = thread.submit(play, game, run, saboteur)
        if case == "added-later":
            while not mended(saboteur) and not playing.done():
                time.sleep(0.1)
            time.sleep(6)
            nodes.nodes.append(nodes.add())
    if case == "stopped":
        os.kill(hit[0], signal.SIGCONT)  # it wakes, and finds that it is dead
        time.sleep(2)
    print(json.dumps(playing.result()), flush=True)
    ray.shutdown()
    for pid in hit:
        if Path(f"/proc/{pid}").exists():
            kill(pid)
    nodes.cluster.shutdown()
    shutil.rmtree(nodes.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
