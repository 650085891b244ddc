"""A server in the style of a Ray actor, for programs that were written for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastps.cluster import ray as cluster
from fastps.errors import ClosedError, OptionError
from fastps.tables.handle import TableHandle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastps.server.handle import ParameterServer

NAMES = {"get_params": "pull", "update_params": "push"}  # what programs call them, and what they are here
ASKED = ("hyper", "versions")  # properties of a server that an actor would have as methods

# What makes sense in the caller's process alone, and what to do.
HERE = {
    "close": "the process that created the server ends it: close()",
    "export": "the path would be one of the shard's machine: export(path), or to_arrow.remote()",
    "flush": "it waits for what this process has started: flush(), or ray.get() of references",
    "items": "batches come one by one: `for keys, rows in items():`, or to_arrow.remote()",
    "keys": "batches come one by one: `for keys in keys():`, or to_arrow.remote()",
    "load": "the path would be one of the shard's machine: load(path), or from_arrow.remote(table)",
    "pull_async": "a reference is a result to come already: pull.remote()",
    "push_async": "a reference is a result to come already: push.remote(grads)",
    "push_pull_async": "a reference is a result to come already: push_pull.remote(grads)",
    "view": "a view is this node's memory: call view() here, or pull.remote() for a copy",
    "worker": "a worker's session stays in the process that opens it: `with worker() as w:`",
}
LOCAL = {"out": "memory of this process", "resume": "known to this process alone"}  # arguments


class Method:
    """A verb of a server or a table. Called, it takes the fast way; `remote(...)` sends the call to the first shard's
    process and answers a Ray object reference."""

    def __init__(self, target: ParameterServer | TableHandle, name: str) -> None:
        self._target, self._name = target, name

    def __call__(self, *args: Any, **options: Any) -> Any:
        return perform(self._target, self._name, *args, **options)

    def remote(self, *args: Any, **options: Any) -> Any:
        if self._name in HERE:
            raise OptionError(f"{self._name}.remote: {HERE[self._name]}")
        for option in LOCAL.keys() & options.keys():
            raise OptionError(
                f"{self._name}.remote: {option}= is {LOCAL[option]}; omit it, or call {self._name}() here"
            )
        server, table = self._target, None
        if isinstance(server, TableHandle):
            server, table = server._server, server.name
        if server._closed:
            raise ClosedError(f"{self._name}.remote: this handle was closed")
        return cluster.actor_of(server._spec, 0).perform.remote(table, self._name, *args, **options)

    def __repr__(self) -> str:
        return f"<{self._name} of {self._target!r}: call it, or {self._name}.remote(...)>"


def perform(target: Any, name: str, /, *args: Any, **options: Any) -> Any:
    """Calls a verb by its name; a property is a verb without arguments."""
    value = getattr(target, name)
    return value(*args, **options) if name not in ASKED or callable(value) else value


class ActorStyle:
    """What a server and its tables have in common: each verb as a `Method`, everything else as it is."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        verb = NAMES.get(name, name)
        if verb in ASKED and hasattr(type(self._target), verb):
            return Method(self._target, verb)
        value = getattr(self._target, verb)
        if isinstance(value, TableHandle):
            return ActorStyleTable(value)
        return Method(self._target, verb) if callable(value) else value

    def __dir__(self) -> list[str]:
        return dir(self._target)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._target,)

    def __repr__(self) -> str:
        return f"<actor style {self._target!r}>"


class ActorStyleServer(ActorStyle):
    """What `ParameterServer.remote` answers.

    ``get_params.remote()`` and ``update_params.remote(grad)``, and every verb of ParameterServer in this way
    (``push.remote(grad)``, ``slots.remote("m")``, ``versions.remote()``), are Ray calls: the first shard's process
    executes them, in the order in which one process makes them. Called without `remote` a verb takes the fast way, and
    does not wait for calls under way; ``hyper()`` and ``versions()`` are called, too. ``ps[name]`` and ``ps.table`` are
    tables in the same style.
    """

    def __getitem__(self, name: str) -> Any:
        found = self._target[name]
        return ActorStyleTable(found) if isinstance(found, TableHandle) else found

    def __contains__(self, name: object) -> bool:
        return name in self._target

    def __iter__(self) -> Iterator[str]:
        return iter(self._target)

    def __len__(self) -> int:
        return len(self._target)

    def __enter__(self) -> ActorStyleServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._target.close()

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *NAMES]


class ActorStyleTable(ActorStyle):
    """A table of such a server: ``ps["users"].pull.remote(keys)``."""

    def __len__(self) -> int:
        return len(self._target)

    def __contains__(self, key: Any) -> bool:
        return key in self._target
