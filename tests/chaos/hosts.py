"""A cluster of several hosts, as far as Ray and torch can tell: a network namespace and an address for each.

To be used by a process that was started in namespaces of its own (`cluster_script.APART`): whatever is made and started
here is seen by nobody else, and ends with that process. All cables lead to a bridge in one more namespace. No host has
a way out.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from nodes import QUICK, STORE
from wire import enter

from actors.nodes import wait_for_nodes

SUBNET, PORT = "10.231.7", 6379
START_SECONDS = 180.0
PROBE_SECONDS = 1.0
RAY = str(Path(sys.executable).with_name("ray"))


@dataclass
class Host:
    """One of the cluster."""

    name: str
    address: str
    log: Path
    process: subprocess.Popen[bytes]
    """`ray start --block`, which ends with its node."""


class Hosts:
    """A head without CPUs, where this process is from now on, and `count` hosts of one CPU each."""

    def __init__(self, count: int, *, wired: bool = False) -> None:
        """`wired`: the head's cable can be slow. Raises UserError when the nodes do not come up."""
        self._wire: subprocess.Popen[str] | None = None
        # Private to us: the names of namespaces, and Ray's folders, whose paths must be short.
        _run("mount", "-t", "tmpfs", "none", "/run")
        _names_lead_nowhere()
        for number, name in enumerate(["switch", "head", *(f"h{i}" for i in range(1, count + 1))]):
            _run("ip", "netns", "add", name)
            if name == "switch":
                _run("ip", "-n", name, "link", "add", "bridge", "type", "bridge")
                _run("ip", "-n", name, "link", "set", "bridge", "up")
            else:
                self._connect(name, number, wired and name == "head")
        head = _start("head", 1, "--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false",
                      f"--system-config={json.dumps(QUICK)}")  # fmt: skip
        enter("head")
        self.address = f"{head.address}:{PORT}"
        until = time.monotonic() + START_SECONDS
        while _round_trip(head.address, PORT) is None and head.process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        hosts = [_start(f"h{i}", i + 1, f"--address={self.address}", "--num-cpus=1") for i in range(1, count + 1)]
        self.hosts = {host.address: host for host in hosts}
        self._all = [head, *hosts]
        try:
            wait_for_nodes(self.address, count + 1, START_SECONDS, lambda line: print(line, file=sys.stderr))
        except BaseException:
            self.end()
            raise
        ray.init(address=self.address, log_to_driver=False)

    def _connect(self, name: str, number: int, wired: bool) -> None:
        """A cable from the host to the bridge."""
        port = f"port-{name}"
        if wired:
            command = [sys.executable, str(Path(__file__).with_name("wire.py")), name, "eth0", "switch", port]
            self._wire = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self._wire.stdout is not None
            assert self._wire.stdout.readline() == "ready\n"
        else:
            _run("ip", "-n", "switch", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "-n", "switch", "link", "set", port, "master", "bridge", "up")
        _run("ip", "-n", name, "address", "add", f"{SUBNET}.{number}/24", "dev", "eth0")
        for interface in ("lo", "eth0"):
            _run("ip", "-n", name, "link", "set", interface, "up")

    def host_of(self, node: str) -> Host:
        """By Ray's id of the node."""
        return self.hosts[next(each["NodeManagerAddress"] for each in ray.nodes() if each["NodeID"] == node)]

    def alive(self) -> set[str]:
        """Names of the hosts that the head thinks are alive."""
        living = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        return {host.name for address, host in self.hosts.items() if address in living}

    def pull(self, host: Host) -> None:
        """Pull its cable out of the switch: the host sees no carrier."""
        _run("ip", "-n", "switch", "link", "set", f"port-{host.name}", "down")

    def put_back(self, host: Host) -> None:
        """The cable."""
        _run("ip", "-n", "switch", "link", "set", f"port-{host.name}", "up")

    def part(self, *hosts: Host, parted: bool = True) -> None:
        """These hosts do not reach each other any more, but all others; or they do again."""
        for host in hosts:
            state = "on" if parted else "off"
            _run("bridge", "-n", "switch", "link", "set", "dev", f"port-{host.name}", "isolated", state)

    def slow(self, seconds: float, share: float) -> None:
        """From now on the head's cable takes so long for a frame, each way, and loses a share of them."""
        assert self._wire is not None, "the head's cable is not wired"
        assert self._wire.stdin is not None
        self._wire.stdin.write(f"{seconds} {share}\n")
        self._wire.stdin.flush()

    def end(self) -> list[int]:
        """Leave the cluster and end it: what `wire.py` counted, if there is one."""
        ray.shutdown()
        for host in self._all:
            host.process.terminate()
        counted = "" if self._wire is None else self._wire.communicate()[0]
        for host in self._all:
            try:
                host.process.wait(20)
            except subprocess.TimeoutExpired:
                host.process.kill()
        return [int(word) for word in counted.split()]


def round_trip(host: Host) -> float | None:
    """Seconds to a host and back, from the namespace of the calling thread; None when it does not answer."""
    return _round_trip(host.address, 9, refused=True)


def _round_trip(address: str, port: int, refused: bool = False) -> float | None:
    began = time.monotonic()
    try:
        socket.create_connection((address, port), timeout=PROBE_SECONDS).close()
    except ConnectionRefusedError:
        return time.monotonic() - began if refused else None
    except OSError:
        return None
    return time.monotonic() - began


def gone(pid: int) -> bool:
    """Has a process ended, be it that nobody has asked how?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until(condition: Any, seconds: float) -> float | None:
    """Seconds until the condition holds; None when it does not come about in time."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            return None
        time.sleep(0.05)
    return time.monotonic() - began


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _names_lead_nowhere() -> None:
    """As on many nodes, the host's own name is that of 127.0.0.1, and a library that asks for it listens there."""
    Path("/run/hosts").write_text("127.0.0.1 localhost host\n")
    _run("mount", "--bind", "/run/hosts", "/etc/hosts")
    _run("hostname", "host")


def _start(name: str, number: int, *options: str) -> Host:
    """Raises nothing: whoever waits for the node tells."""
    address, log = f"{SUBNET}.{number}", Path(f"/run/{name}.log")
    command = ["ip", "netns", "exec", name, RAY, "start", "--block", f"--node-ip-address={address}",
               f"--temp-dir=/run/ray-{name}", f"--object-store-memory={STORE}", "--disable-usage-stats"]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen([*command, *options], stdout=out, stderr=out, env=dict(os.environ))
    return Host(name, address, log, process)
