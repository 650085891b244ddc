"""A server without Ray, for tests of transports: its shards are in this process, with their gateways."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastps.server.options import plan_server
from fastps.shard.shard import Shard
from fastps.spec.server import ServerSpec
from fastps.transport.contract import Buffer
from fastps.transport.shm import ShmEndpoint

DEFAULTS: Mapping[str, Any] = {
    "rule": None, "num_shards": 1, "consistency": None, "isolation": "shard", "clip_norm": None, "clip_value": None,
    "nonfinite": "apply", "placement": None, "name": None, "timeout": 30.0, "max_sessions": 16, "max_workers": 8,
}  # fmt: skip


class LocalServer:
    """The shards of one node, in this process.

    Attributes
    ----------
    spec : as handles carry it, without actors
    shards : each with a gateway that serves all of them
    """

    def __init__(self, params: Any, **options: Any) -> None:
        plan = plan_server(params, **{**DEFAULTS, **options})
        count, tables = len(plan.shards), tuple((table.info, table.rule, table.life) for table in plan.tables)
        self.shards = [Shard(shard.index, count, "0" * 56, f"{shard.index:032}") for shard in plan.shards]
        for shard, planned in zip(self.shards, plan.shards, strict=True):
            shard.prepare(
                plan.structure, planned.params_bytes, plan.assignment, tables, plan.gradients.clips, plan.max_sessions,
                plan.isolated, plan.max_workers, plan.consistency,
            )  # fmt: skip
        created = [shard.create() for shard in self.shards]
        addresses = tuple(replace(address, node=0) for _, address in created)
        self.spec: ServerSpec = plan.spec(os.urandom(16).hex(), (created[0][0],), addresses, ("",) * count)
        for shard in self.shards:
            shard.join(self.spec, {})
        initial = plan.initial()
        if initial is not None:
            self.endpoint().start(initial, plan.timeout)

    def endpoint(self) -> ShmEndpoint:
        """An endpoint to all shards, by shared memory."""
        return ShmEndpoint.of_leaves(self.spec, tuple(range(len(self.shards))))

    def serve(self, head: Buffer, *parts: Buffer) -> Buffer:
        """Serves a message, by the gateway of the first shard."""
        return self.shards[0].serve(head, *parts)

    def close(self) -> None:
        for shard in self.shards:
            shard.close()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
