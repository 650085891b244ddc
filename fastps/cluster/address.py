"""Addresses of Ray clusters."""

from __future__ import annotations

import socket
from collections.abc import Collection

SECONDS = 5.0


def chosen(named: str | None, recorded: str | None, found: Collection[str]) -> str:
    """Which cluster to join: the one that the user has named, the latest that was started by `ray start`, or the only
    one of those that run on this machine. Raises ValueError when there is none, or no telling."""
    if named or recorded:
        return named or recorded or ""
    if len(found) > 1:
        raise ValueError(f"several Ray clusters run on this machine, {sorted(found)}")
    if not found:
        raise ValueError("no Ray cluster runs on this machine")
    return next(iter(found))


def is_local(address: str) -> bool:
    """Whether HOST:PORT is on this machine: only then can a socket be bound to it."""
    try:
        family, *_, (host, *_) = socket.getaddrinfo(address.rpartition(":")[0], None, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def require_answer(address: str) -> None:
    """Asks whether anybody is at HOST:PORT before Ray does, which waits for minutes. Raises ValueError."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(f"expected HOST:PORT of a running Ray cluster, got {address!r} ({error})") from None
