"""What fastps is measured against, one small file each, with the same three functions:

create(elements, workers, node, rule) -> server   in the driver; `node` is Ray's id of the node where parameters go
pull(server, out)                                 in a worker
push(server, grad)                                in a worker: applies the rule, unless `Peer.work` says what it does

`server` travels to the workers, and may have `close`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Peer:
    """What a sweep has to know about one.

    Attributes
    ----------
    requires : a package without which it is left out
    private : each worker has its own parameters, without synchronisation: a reference
    one_node : it works only on the node of the parameters
    in_step : all workers make the same number of calls
    joins : workers form a group, which a process can do only once
    work : what a push does whatever the rule; None: it applies the rule
    lacks : what an alternative to fastps lacks; "" for references, and for peers without a server
    """

    requires: str | None = None
    private: bool = False
    one_node: bool = False
    in_step: bool = False
    joins: bool = False
    work: str | None = None
    lacks: str = ""


PEERS = {
    "memcpy": Peer(private=True, work="copy"),
    "in_place": Peer(private=True),
    "triad": Peer(private=True, work="triad"),
    "shared_array": Peer(
        one_node=True,
        lacks="safety when a process dies (one that held the lock blocks all others for ever, and leaves its push half "
        "done), and other machines",
    ),
    "ray_actor": Peer(lacks="a way without a message: every operation goes through the actor's one process"),
    "torch_rpc": Peer(
        requires="torch", joins=True,
        lacks="a way without a message (every operation goes through the server's one process), and workers that come "
        "and go: the group is fixed when it begins",
    ),
    "gloo": Peer(requires="torch", joins=True, in_step=True),
}  # fmt: skip
# What an operation is compared with: the same work by one process on memory that it does not share.
REFERENCES = {"pull": "memcpy", "push": "in_place", "push_pull": "in_place"}
MEMORY = "triad"
ACTOR = "ray_actor"  # what fastps replaces: the server that one writes first
RIVALS = tuple(name for name, peer in PEERS.items() if peer.lacks)


def installed() -> tuple[str, ...]:
    """The names of those that can run here."""
    return tuple(n for n, p in PEERS.items() if p.requires is None or importlib.util.find_spec(p.requires) is not None)


def module(name: str) -> ModuleType:
    """With the three functions."""
    return importlib.import_module(f"bench.peers.{name}")


def work_of(subject: str, op: str, rule: str) -> str:
    """What an operation of a subject, fastps or a peer, does to memory: "copy", a rule, or "triad"."""
    always = PEERS[subject].work if subject in PEERS else None
    return always or ("copy" if op == "pull" else rule)


def comparable(row: Mapping[str, Any]) -> bool:
    """Whether a row is of the work that fastps does in its setting; only such rows are compared with it."""
    return bool(row["work"] == work_of("fastps", row["op"], row["rule"]))
