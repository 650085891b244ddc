"""Attaching to servers: a process has one session per server, shared by all handles and tasks."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from fastps.client.arrays import ArraySession
from fastps.client.rounds import RoundSession
from fastps.client.rows import RowSession
from fastps.client.session import Session
from fastps.cluster import ray as cluster
from fastps.deadline import deadline_after, left_until
from fastps.errors import ClosedError
from fastps.spec.server import ServerSpec
from fastps.transport.carriers import CARRIERS
from fastps.transport.contract import Carrier
from fastps.transport.loopback import Loopback
from fastps.transport.membership import RemoteMembership
from fastps.transport.ray import RayCarrier
from fastps.transport.remote import RemoteEndpoint

KEPT = 16  # sessions, besides those that handles refer to


class Attachments:
    """The sessions of this process, kept between tasks, so that the next one finds the arenas mapped.

    A session ends when its last open handle is closed. Those of servers whose shards on this node are closed or dead
    are dropped when another server is attached; of a server without shards here that cannot be told, so its session is
    kept until there are KEPT newer ones.

    Attributes
    ----------
    lock : held while handles are attached and closed
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Session] = OrderedDict()
        self._sessions: WeakValueDictionary[str, Session] = WeakValueDictionary()  # and those that handles refer to
        self._users: WeakSet[Attachment] = WeakSet()
        self._gateways: dict[tuple[str, int], Any] = {}  # by (server id, shard): `serve` of gateways in this process
        self.lock = threading.RLock()
        os.register_at_fork(after_in_child=self._begin_in_child)

    def _begin_in_child(self) -> None:
        """In a forked child: the thread that held the lock is missing, and Ray cannot be used. Sessions that need Ray
        are dropped: a new one may reach all shards without it."""
        self.lock = threading.RLock()
        self._kept = OrderedDict((i, s) for i, s in self._kept.items() if s.all_here)
        self._sessions = WeakValueDictionary({i: s for i, s in self._sessions.items() if s.all_here})
        self._gateways = {}

    def session(self, spec: ServerSpec) -> Session:
        with self.lock:
            session = self._sessions.get(spec.server_id)
            if session is None:
                for server_id in [i for i, s in self._kept.items() if not s.alive()]:
                    self._end(server_id, self._kept[server_id])
                session = new_session(spec, cluster.this_node())
                self._sessions[spec.server_id] = self._kept[spec.server_id] = session
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return session

    def serves(self, spec: ServerSpec, shard: int, serve: Any) -> None:
        """In a shard's process: messages to that shard are served directly, since a process cannot wait for itself."""
        self._gateways[spec.server_id, shard] = serve

    def carrier(self, spec: ServerSpec, shard: int) -> Carrier:
        """A carrier to the process of a shard."""
        serve = self._gateways.get((spec.server_id, shard))
        return CARRIERS["ray"](spec, shard) if serve is None else Loopback(serve)

    def add(self, user: Attachment) -> None:
        """Of a handle that uses a session from now on, until it is closed or dropped."""
        self._users.add(user)

    def drop(self, server_id: str) -> None:
        """Closes the session of a server, if there is one, unless the server is open and a handle uses it."""
        with self.lock:
            session = self._sessions.get(server_id)
            if session is None or (session.alive() and any(user.uses(session) for user in self._users)):
                return
            self._end(server_id, session)

    def _end(self, server_id: str, session: Session) -> None:
        self._kept.pop(server_id, None)
        self._sessions.pop(server_id, None)
        session.close()


def new_session(spec: ServerSpec, node_id: str | None) -> Session:
    """A session of a process on this node. Raises RayRequiredError if shards on other nodes need Ray and this process
    is not connected to it."""
    session = Session(spec, node_id, connect, cluster.resolve, enrol)
    if not session.all_here:
        cluster.require(spec.labels(session.endpoints[0].shards))
    return session


def connect(spec: ServerSpec, shards: tuple[int, ...], shard: int | None) -> RemoteEndpoint:
    """An endpoint to the shards of one node, by the process of `shard`, or of any of them if that is None."""
    chosen = shards[os.getpid() % len(shards)] if shard is None else shard  # spreads callers over the node's shards
    return RemoteEndpoint(spec, shards, attachments.carrier(spec, chosen))


def enrol(session: Session, rank: int | None, timeout: float) -> RemoteMembership:
    """A membership in a server whose shard 0 is on another node."""
    spec, last = session.spec, [""]
    what = f"worker on {spec.label(0)}"

    def find(timeout: float, died: bool) -> Carrier:
        deadline = deadline_after(timeout)
        lost = last[0] if died else ""
        name, last[0] = session.process_of(0).ask("coordinator", lost, timeout=left_until(deadline))
        return RayCarrier(name, last[0], what)

    return RemoteMembership(spec, rank, timeout, find)


class Attachment:
    """A handle's connection to its server in this process.

    Attributes
    ----------
    spec : the server
    arrays : the session of its arrays; None until the first use, and once closed
    closed : whether the handle was closed
    ended : whether the server was closed with it
    """

    __slots__ = ("__weakref__", "_rows", "arrays", "closed", "ended", "spec")

    def __init__(self, spec: ServerSpec) -> None:
        self.spec, self.closed, self.ended = spec, False, False
        self.arrays: ArraySession | None = None
        self._rows: dict[int, RowSession] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.spec,)  # sessions stay in this process

    def attach(self) -> ArraySession:
        """Attaches, at first use. Raises ClosedError."""
        with attachments.lock:  # or it would be open again after another thread has closed it meanwhile
            if self.closed:
                raise ClosedError(self.what_closed())
            return self.arrays or self.use(attachments.session(self.spec))

    def what_closed(self) -> str:
        """What a closed handle says, and what helps: the server may still live, and may have a name."""
        if self.ended:
            return "this server was closed, and its parameters are gone; create a new one"
        name = self.spec.name
        if name is None:
            return "this handle was closed; use another one of its server, which may still live: its owner can send it"
        return f"this handle was closed; get another one with fastps.get({name!r}), if its server still lives"

    def use(self, session: Session) -> ArraySession:
        """Uses this session from now on."""
        kind = RoundSession if self.spec.consistency.rounds else ArraySession
        with attachments.lock:
            attachments.add(self)
            self._rows = {}
            self.arrays = arrays = kind(session)
        return arrays

    def uses(self, session: Session) -> bool:
        """Whether it is open and uses this session."""
        arrays = self.arrays
        return arrays is not None and arrays.session is session

    @property
    def session(self) -> Session:
        return (self.arrays or self.attach()).session

    def rows(self, number: int) -> RowSession:
        """The session of a table."""
        rows = self._rows.get(number)
        if rows is None or self.arrays is None:
            rows = self._rows[number] = RowSession(self.session, number)
        return rows

    def close(self, ends: bool = False) -> Session | None:
        """Closes the handle; `ends`: and the server. Returns the session that it used."""
        with attachments.lock:
            arrays, self.arrays = self.arrays, None
            self.closed, self.ended, self._rows = True, self.ended or ends, {}
        return None if arrays is None else arrays.session


attachments = Attachments()
