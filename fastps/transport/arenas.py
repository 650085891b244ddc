"""Which arenas this process can map, and mapping them."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from fastps._core import Arena
from fastps.errors import ArenaError, FastPSError, ShardDiedError
from fastps.spec.server import NodeAddress, ServerSpec


def this_machine() -> str:
    """Identifies the machine's boot and the pid namespace: processes that agree on both can exchange pids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # some sandboxes have none
        boot = os.uname().nodename
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def is_here(node: NodeAddress, node_id: str | None) -> bool:
    """Whether a process of Ray's node `node_id` (None: outside of Ray) maps the arenas of a node. One machine may run
    several nodes."""
    return node.machine == this_machine() if node_id is None else node.node_id == node_id


def open_arena(spec: ServerSpec, shard: int) -> Arena:
    """Maps a shard's arena through the file descriptor of its process.

    Raises ShardDiedError when the process is gone, ArenaError when this process has no permission.
    """
    address, label = spec.addresses[shard], spec.label(shard)
    path = f"/proc/{address.pid}/fd/{address.fd}"
    try:
        arena = Arena.attach(path, address.arena_id, label)
    except (FileNotFoundError, ProcessLookupError):
        raise ShardDiedError(f"{label}: its process {address.pid} is gone; create the server again") from None
    except FastPSError:
        raise
    except OSError as error:
        few = error.errno in (errno.EMFILE, errno.ENFILE)
        hint = "raise the limit of open files (ulimit -n)" if few else "run workers as the user of the shard"
        raise ArenaError(error.errno, f"{label}: cannot open {path}: {error.strerror}; {hint}") from error
    arena.check()
    return arena


def require_alive(arenas: Mapping[int, Arena]) -> None:
    """Raises ClosedError or ShardDiedError when an arena is closed or its owner has died. Otherwise everything read
    from them before this call was valid. Cost: two loads a shard."""
    for arena in arenas.values():
        arena.check()
