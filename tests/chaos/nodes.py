"""A match on a cluster of several real nodes of this host, of which some die: run by test_nodes_die.py as a script.

    python nodes.py CASE FOLDER

The head has no CPU for roles, so the driver's node never dies with them. Each node has its own temporary folder. Prints
one JSON line: status, failed, notes, and seconds from the blow to the first note of mending and to the first step that
ended after it.
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
from saboteur import Saboteur, events, kill, small_game

from tsdf_ray import api
from tsdf_ray.errors import Stopped, UserError
from tsdf_ray.game.spec import MatchSpec

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

    def strike_head(self) -> int:
        """Kill -9 of the head's control store (GCS) and raylet: this process ends too."""
        for process in ("gcs_server", "raylet"):
            kill(int(self.cluster.head_node.all_processes[process][0].process.pid))
        return 0

    def strike(self, node_id: str, number: int) -> int:
        """A signal to the raylet of a node."""
        node = next(node for node in self.nodes if node.node_id == node_id)
        pid = int(node.all_processes["raylet"][0].process.pid)
        os.kill(pid, number)
        return pid


class NodeSaboteur(Saboteur):
    """Strikes the node on which the attacker retrains, in round 1; or the head, in round 2."""

    def __init__(self, run: Path, nodes: Nodes, number: int, head: bool) -> None:
        super().__init__(run)
        self._nodes, self._number, self._head = nodes, number, head
        self.struck_at = self.noticed_at = 0.0

    def phase(self, match: MatchSpec, round: int, phase: str) -> None:
        """As the match waits for the retraining."""
        if (round, phase) == (2 if self._head else 1, "retrain"):
            seen = self._waited[match.id, round, phase] = self._waited.get((match.id, round, phase), 0) + 1
            if seen == 2:
                placed = [line for line in events(self._events) if line.get("event") == "role placed"]
                self.struck_at = time.time()
                node = placed[-1]["node"]
                struck = self._nodes.strike_head() if self._head else self._nodes.strike(node, self._number)
                self.struck.append(struck)

    def note(self, text: str) -> None:
        """Kept."""
        super().note(text)
        if "built anew" in text and not self.noticed_at:
            self.noticed_at = time.time()


def main() -> None:
    """See the module."""
    case, folder = sys.argv[1], Path(sys.argv[2])
    run = folder / "run"
    nodes = Nodes(1 if case in {"no-spare", "added-later", "head"} else 2)
    saboteur = NodeSaboteur(run, nodes, signal.SIGSTOP if case == "stopped" else signal.SIGKILL, case == "head")
    wait = 8 if case == "no-spare" else 120
    outcome: dict[str, Any] = {}
    with ThreadPoolExecutor(1) as thread:  # Ray starts nodes in the main thread alone
        game = small_game(f"resources.wait_seconds={wait}")
        playing = thread.submit(api.play, game, run, progress=saboteur, report=False)
        if case == "added-later":
            while not saboteur.noticed_at:
                time.sleep(0.1)
            time.sleep(6)
            nodes.nodes.append(nodes.add())
    try:
        played = playing.result()
        outcome = {"status": played.status, "failed": played.info["failed"]}
    except (UserError, Stopped) as error:
        outcome = {"status": type(error).__name__, "failed": {"": str(error)}}
    if case == "stopped":
        os.kill(saboteur.struck[0], signal.SIGCONT)  # it wakes, and finds that it is dead
        time.sleep(2)
    ends = [line["end"] for line in events(run / "events.jsonl") if "step" in line and "end" in line]
    outcome["notes"] = saboteur.notes
    outcome["noticed"] = saboteur.noticed_at - saboteur.struck_at
    outcome["back"] = min((end - saboteur.struck_at for end in ends if end > saboteur.noticed_at), default=None)
    print(json.dumps(outcome), flush=True)
    ray.shutdown()
    for pid in saboteur.struck:
        if Path(f"/proc/{pid}").exists():
            kill(pid)
    nodes.cluster.shutdown()
    shutil.rmtree(nodes.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
