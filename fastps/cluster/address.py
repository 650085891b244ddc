"""Addresses of Ray clusters."""

from __future__ import annotations

import socket
from collections.abc import Collection

SECONDS = 5.0


def chosen(named: str | None, recorded: str | None, found: Collection[str]) -> str:
    """Which cluster to join: the one that the user has named, else the latest started by `ray start`, else the only one
    that runs on this machine, as for "auto". Raises ValueError if there is none, or several."""
    if named == "local":
        raise ValueError("RAY_ADDRESS is 'local', which stands for a new Ray cluster, in which no server lives")
    if named and named != "auto":
        return named
    if recorded:
        return recorded
    if len(found) > 1:
        raise ValueError(f"several Ray clusters run on this machine, {sorted(found)}")
    if not found:
        raise ValueError("no Ray cluster runs on this machine")
    return next(iter(found))


def is_local(address: str) -> bool:
    """Whether HOST:PORT is on this machine, which is when a socket can be bound to it."""
    try:
        family, *_, (host, *_) = socket.getaddrinfo(address.rpartition(":")[0], None, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def require_reachable(address: str) -> None:
    """Raises ValueError if no process accepts connections at HOST:PORT. Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"expected HOST:PORT of a running Ray cluster, got {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(f"expected HOST:PORT of a running Ray cluster, got {address!r} ({error})") from None
