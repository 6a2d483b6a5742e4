"""Does a Ray head answer at an address? Asked first: Ray's own attempt goes on for many minutes."""

from __future__ import annotations

import os
import re
import socket

from tsdf_ray.errors import UserError

ANSWER_SECONDS = 10.0
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""How HTTP/2 begins, and an empty frame of settings: what gRPC speaks, and so Ray's head."""
SETTINGS = 4
"""Kind of the frame that a server sends first."""


def check_address(address: str) -> None:
    """Raises UserError when `address` cannot be one, whatever may start there later."""
    host, colon, port = address.rpartition(":")
    right = host and colon and re.fullmatch(r"\d{1,5}", port) and int(port) <= 65535
    if not (right or _is_rays_own(address)):
        raise UserError(f"--address {address}: is no address of a Ray cluster; write it like HEAD:6379, or `local`")


def check_listening(address: str, seconds: float = ANSWER_SECONDS) -> None:
    """Raises UserError when `address` cannot be one, nothing answers there, or what answers is not gRPC.

    Only HOST:PORT is looked at: `auto` and ray:// are Ray's own business.
    """
    check_address(address)
    if _is_rays_own(address):
        return
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds) as connection:
            plain = os.environ.get("RAY_USE_TLS", "0") in {"0", ""}
            right = not plain or _speaks_grpc(connection)
    except OSError as error:
        raise UserError(
            f"nothing answers at {address} ({error.strerror or error}); --address: start the cluster, check host and "
            "port, or leave --address and RAY_ADDRESS out"
        ) from error
    if not right:
        raise UserError(
            f"--address {address}: what answers there is no Ray cluster; give the address that its head was started "
            "with, as HEAD:6379"
        )


def _is_rays_own(address: str) -> bool:
    return address == "auto" or "://" in address


def _speaks_grpc(connection: socket.socket) -> bool:
    """A server of HTTP/2 answers its settings: 3 bytes of length, then the kind of the frame."""
    connection.sendall(HELLO)
    answer = b""
    while len(answer) < 4 and (more := connection.recv(4 - len(answer))):
        answer += more
    return len(answer) == 4 and answer[3] == SETTINGS
