"""The alternative with torch: a server process that workers call with torch.distributed.rpc."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # on how its connections end
import torch
from torch.distributed import rpc

from bench.peers.update import Parameters, zeros

SECONDS = 60.0
# Of the process that serves: calls of RPC find only what a module has. Several threads execute them.
parameters: dict[str, Parameters] = {}
lock = threading.Lock()


def get_params() -> torch.Tensor:
    with lock:
        return torch.from_numpy(parameters["params"].params).clone()


def update_params(grad: torch.Tensor) -> None:
    with lock:
        parameters["params"].push(grad.numpy())


def join(name: str, rank: int, size: int, address: str) -> None:
    options = rpc.TensorPipeRpcBackendOptions(init_method=address, rpc_timeout=SECONDS)
    rpc.init_rpc(name, rank=rank, world_size=size, rpc_backend_options=options)


@ray.remote(num_cpus=0)
class Server:
    def __init__(self, elements: int, rule: str) -> None:
        from bench.peers import torch_rpc  # what Ray makes of this class has a `parameters` of its own

        torch.set_num_threads(1)
        torch_rpc.parameters["params"] = zeros(rule, elements)
        self.joined = 0

    def address(self) -> str:
        with socket.socket() as free:
            free.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def next_rank(self) -> int:
        self.joined += 1
        return self.joined

    def serve(self, size: int, address: str) -> None:
        join("server", 0, size, address)

    def end(self) -> None:
        rpc.shutdown(graceful=False)


class Handle:
    """Of the server; joins the group of its workers when it is first used."""

    def __init__(self, actor: Any, address: str, size: int, owner: bool) -> None:
        self.actor, self.address, self.size, self.owner, self.joined = actor, address, size, owner, False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.actor, self.address, self.size, False)

    def join(self) -> None:
        torch.set_num_threads(1)
        rank = ray.get(self.actor.next_rank.remote())
        join(f"worker{rank}", rank, self.size, self.address)
        self.joined = True

    def close(self) -> None:
        if self.joined:
            rpc.shutdown(graceful=False)
        if self.owner:
            ray.kill(self.actor)


def create(elements: int, workers: int, node: str, rule: str) -> Handle:
    # Ranks are given while `serve` waits for the workers.
    options = {"max_concurrency": 2, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
    actor = Server.options(**options).remote(elements, rule)
    address = ray.get(actor.address.remote())
    actor.serve.remote(1 + workers, address)
    return Handle(actor, address, 1 + workers, owner=True)


def pull(server: Handle, out: np.ndarray) -> None:
    if not server.joined:
        server.join()
    torch.from_numpy(out).copy_(rpc.rpc_sync("server", get_params))


def push(server: Handle, grad: np.ndarray) -> None:
    if not server.joined:
        server.join()
    rpc.rpc_sync("server", update_params, args=(torch.from_numpy(grad),))
