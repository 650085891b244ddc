"""Servers that this process has created and not closed."""

from __future__ import annotations

import warnings
import weakref
from typing import Any

from fastps.cluster import ray as cluster
from fastps.cluster.placement import Owned
from fastps.spec.server import ServerSpec

Created = tuple[ServerSpec, Owned, "weakref.ref[Any]"]  # with the handle that owns it


class Creations:
    """They live until the process ends, since other processes may use their handles, even if this one has kept none."""

    def __init__(self) -> None:
        self._servers: dict[str, Created] = {}

    def add(self, spec: ServerSpec, owned: Owned, handle: Any) -> None:
        self._servers[spec.server_id] = spec, owned, weakref.ref(handle)

    def remove(self, server_id: str) -> None:
        self._servers.pop(server_id, None)

    def living(self) -> list[Created]:
        """Excludes servers of an earlier Ray, and in a forked child those of its parent."""
        here = cluster.connection()
        return [server for server in self._servers.values() if server[1].connection == here]

    def warn(self) -> None:
        """Warns of servers that the program cannot close any more, because it has dropped their handles."""
        lost = [spec for spec, _, reference in self.living() if reference() is None]
        if lost:
            mib = sum(plan.params_bytes for spec in lost for plan in spec.plans) / 2**20
            warnings.warn(
                f"this process has dropped its handles of {len(lost)} server{'s' * (len(lost) > 1)} without close(), "
                f"which live on with {mib:,.0f} MiB of parameters; `for ps in fastps.servers(): ps.close()` ends all "
                f"servers that it has created",
                stacklevel=3,
            )
