"""A server in the style of a Ray actor, for programs that were written for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastps import cluster

if TYPE_CHECKING:
    from fastps.server import ParameterServer


class Method:
    """`remote(...)` sends the call to the first shard's process and answers a Ray object reference."""

    def __init__(self, server: ParameterServer, name: str) -> None:
        self._server, self._name = server, name

    def remote(self, *args: Any) -> Any:
        actor = cluster.actor_of(self._server._spec, 0)
        return getattr(actor, self._name).remote(*args)


class ActorStyleServer:
    """What `ParameterServer.remote` answers.

    ``get_params.remote()`` and ``update_params.remote(grad)`` are Ray calls, executed in the order in which one process
    makes them. `pull`, `push` and the rest of ParameterServer are here too and take the fast way; they do not wait for
    calls under way.
    """

    def __init__(self, server: ParameterServer) -> None:
        self._server = server
        self.get_params = Method(server, "get_params")
        self.update_params = Method(server, "update_params")

    def __enter__(self) -> ActorStyleServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._server, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorStyleServer, (self._server,)

    def __repr__(self) -> str:
        return f"<actor style {self._server!r}>"
