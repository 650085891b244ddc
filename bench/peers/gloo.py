"""Training without a server: every worker has the parameters, and a push applies the sum of all workers' gradients,
which gloo's all-reduce makes. A pull copies what the worker has."""

from __future__ import annotations

import datetime
import os
from typing import Any

import numpy as np
import ray

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # on how its connections end
import torch
import torch.distributed as dist

from bench.peers.update import Parameters, zeros

SECONDS = 60.0


class Group:
    """A worker's place among the others; it joins them when it is first used."""

    def __init__(self, rule: str, elements: int, workers: int, host: str, port: int, store: Any = None) -> None:
        self.rule, self.elements, self.workers, self.host, self.port = rule, elements, workers, host, port
        self.store: Any = store
        self.state: Parameters | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.rule, self.elements, self.workers, self.host, self.port)

    def join(self) -> None:
        torch.set_num_threads(1)
        timeout = datetime.timedelta(seconds=SECONDS)
        self.store = dist.TCPStore(self.host, self.port, is_master=False, timeout=timeout)
        rank = self.store.add("joined", 1) - 1
        dist.init_process_group("gloo", store=self.store, rank=rank, world_size=self.workers, timeout=timeout)
        self.buffer = torch.empty(self.elements)
        self.state = zeros(self.rule, self.elements)

    def agree(self, count: int) -> int:
        """The least of what all workers say."""
        if self.state is None:
            self.join()
        least = torch.tensor([count])
        dist.all_reduce(least, op=dist.ReduceOp.MIN)
        return int(least[0])

    def close(self) -> None:
        if self.state is not None:
            dist.destroy_process_group()
        self.store = self.state = None


def create(elements: int, workers: int, node: str, rule: str) -> Group:
    store = dist.TCPStore("0.0.0.0", 0, is_master=True, wait_for_workers=False)
    return Group(rule, elements, workers, ray.util.get_node_ip_address(), store.port, store)


def pull(server: Group, out: np.ndarray) -> None:
    if server.state is None:
        server.join()
    np.copyto(out, server.state.params)


def push(server: Group, grad: np.ndarray) -> None:
    if server.state is None:
        server.join()
    server.buffer.copy_(torch.from_numpy(grad))
    dist.all_reduce(server.buffer)
    server.state.push(server.buffer.numpy())
