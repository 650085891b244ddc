"""What fastps is measured against, one small file each, with the same three functions:

create(elements, workers, node) -> server    in the driver; `node` is Ray's id of the node where parameters go
pull(server, out)                            in a worker
push(server, grad)                           in a worker

`server` travels to the workers, and may have `close`.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Peer:
    """What a sweep has to know about one.

    Attributes
    ----------
    requires : a package without which it is left out
    private : each worker has parameters of its own: a limit of the machine, which nobody waits for
    one_node : it cannot leave the node of the parameters
    in_step : all workers make the same number of calls
    joins : workers make a group, of which there is one in the life of a process
    """

    requires: str | None = None
    private: bool = False
    one_node: bool = False
    in_step: bool = False
    joins: bool = False


PEERS = {
    "memcpy": Peer(private=True),
    "numpy_in_place": Peer(private=True),
    "triad": Peer(private=True),
    "shared_array": Peer(one_node=True),
    "ray_actor": Peer(),
    "torch_rpc": Peer(requires="torch", joins=True),
    "gloo": Peer(requires="torch", joins=True, in_step=True),
}
# What an operation is held against.
ROOFS = {"pull": "memcpy", "push": "numpy_in_place", "push_pull": "numpy_in_place"}
MEMORY = "triad"
FLOOR = "ray_actor"


def installed() -> tuple[str, ...]:
    """The names of those that can run here."""
    return tuple(n for n, p in PEERS.items() if p.requires is None or importlib.util.find_spec(p.requires) is not None)


def module(name: str) -> ModuleType:
    """With the three functions."""
    return importlib.import_module(f"bench.peers.{name}")
