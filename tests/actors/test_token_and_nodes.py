"""Where the token is looked for, and what is said while a head is not there or Ray does not start."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray._private.auto_init_hook
import ray._private.utils
from ray_head import free_ports

from actors.cluster import connect
from actors.listening import check_listening
from actors.nodes import wait_for_nodes
from actors.token import source, use_token
from tsdf_ray.errors import UserError


@pytest.fixture(autouse=True)
def _no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def test_where_a_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source() is None
    default = tmp_path / ".ray" / "auth_token"
    default.parent.mkdir()
    default.write_text("")
    assert source() is None
    default.write_text("secret")
    assert source() == str(default)
    named = tmp_path / "named"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(named))
    with pytest.raises(UserError, match="named: cannot be read"):
        source()
    named.touch()
    with pytest.raises(UserError, match="named: is empty"):
        source()
    named.write_text("secret")
    assert source() == str(named)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert source() == "RAY_AUTH_TOKEN"


def test_a_mode_that_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    use_token()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.delenv("RAY_AUTH_MODE")
    use_token()
    assert "RAY_AUTH_MODE" not in os.environ, "without a token there is nothing to send"


def test_a_head_that_is_not_there_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests' Ray
    said: list[str] = []
    (port,) = free_ports(1)
    with pytest.raises(UserError, match=f"after 0.2 s nothing answers at 127.0.0.1:{port}"):
        wait_for_nodes(f"127.0.0.1:{port}", 2, 0.2, said.append)
    assert len(said) == 1
    assert said[0].startswith(f"waiting: nothing answers at 127.0.0.1:{port} (Connection refused)")


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", ":6379", "head:99999"])
def test_what_is_no_address_is_not_waited_for(address: str) -> None:
    with pytest.raises(UserError, match=f"--address {address}: is no address of a Ray cluster"):
        wait_for_nodes(address, 1, 300.0, lambda text: None)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_what_answers_and_is_no_ray_cluster(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself tries for many minutes: a page's server must not be mistaken for a head that is slow."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    address = f"127.0.0.1:{listener.getsockname()[1]}"

    def answer() -> None:
        with listener.accept()[0] as connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.0 400 Bad request\r\n\r\n")

    server = threading.Thread(target=answer)
    server.start()
    with pytest.raises(UserError, match=f"--address {address}: what answers there is no Ray cluster"):
        connect(address)
    server.join()


def test_what_listens_and_says_nothing(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(UserError, match=rf"nothing answers at 127.0.0.1:{port} \(timed out\)"):
        check_listening(f"127.0.0.1:{port}", seconds=0.1)


def test_ray_that_does_not_start_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: object) -> None:
        # As Ray does it.
        raise Exception("The current node timed out during startup.\nThis could happen.")  # noqa: TRY002

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    with pytest.raises(UserError, match=r"cannot be started.*timed out during startup.*--executor inprocess"):
        connect(None)


def test_a_thread_that_is_left_over_starts_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own calls would: a stopped `protect` left its reading thread, which started a cluster nobody asked for."""
    started: list[object] = []
    monkeypatch.setattr("ray._private.auto_init_hook.enable_auto_connect", True)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda **options: started.append(options.get("address")))
    connect(None)
    ray._private.auto_init_hook.auto_init_ray()
    assert started == ["local"]


def test_a_signal_while_ray_starts_is_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler takes the machine away at that moment: exit code 143, and a run that was stopped, has not failed."""
    received: list[int] = []

    def init(**options: object) -> None:
        # As Ray does it, before it starts anything and again for its node.
        ray._private.utils.set_sigterm_handler(lambda number, frame: sys.exit(number))
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        connect(None)
        ray._private.utils.set_sigterm_handler(before)
        assert signal.getsignal(signal.SIGTERM) == before, "afterwards Ray's own way is as it was"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]
