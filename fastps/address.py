"""Addresses of Ray clusters that a user names."""

from __future__ import annotations

import socket

SECONDS = 5.0


def require_answer(address: str) -> None:
    """Asks whether anybody is at HOST:PORT before Ray does, which waits for minutes. Raises ValueError."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(f"expected HOST:PORT of a running Ray cluster, got {address!r} ({error})") from None
