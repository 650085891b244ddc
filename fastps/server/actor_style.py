"""A server in the style of a Ray actor, for programs that were written for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fastps.client.attach import attachments
from fastps.client.refusal import Refusal
from fastps.cluster import ray as cluster
from fastps.errors import ClosedError, OptionError
from fastps.server.reader import reader_of
from fastps.spec.server import ServerSpec
from fastps.tables.reading import TableReading

Make = Callable[[ServerSpec], Any]  # a handle of a server
NAMES = {"get_params": "pull", "update_params": "push"}  # names in such programs, and in fastps
ASKED = ("hyper", "versions")  # properties of a server that an actor would have as methods

# Methods that make sense only in the caller's process, and what to use instead.
HERE = {
    "close": "the process that created the server ends it: close()",
    "export": "the path would be one of the shard's machine: export(path), or to_arrow.remote()",
    "flush": "it waits for what this process has started: flush(), or ray.get() of references",
    "items": "batches come one by one: `for keys, rows in items():`, or to_arrow.remote()",
    "keys": "batches come one by one: `for keys in keys():`, or to_arrow.remote()",
    "load": "the path would be one of the shard's machine: load(path), or from_arrow.remote(table)",
    "peek_async": "a reference is a result to come already: peek.remote(keys)",
    "save": "the path would be one of the shard's machine: save(path)",
    "save_every": "the thread that saves would be one of the shard's process: save_every(directory, steps=1000)",
    "grad_buffer": "its memory is that of this process: grad_buffer()",
    "pull_async": "a reference is a result to come already: pull.remote()",
    "push_async": "a reference is a result to come already: push.remote(grads)",
    "push_pull_async": "a reference is a result to come already: push_pull.remote(grads)",
    "view": "a view is this node's memory: call view() here, or pull.remote() for a copy",
    "worker": "a worker's session stays in the process that opens it: `with worker() as w:`",
}
LOCAL = {"out": "memory of this process", "resume": "known to this process alone"}  # arguments


@dataclass(frozen=True)
class Call:
    """A verb on its way to the process of the first shard.

    Attributes
    ----------
    make : makes a handle there
    table : the name of the table that it is a verb of, or None
    verb : its name
    """

    make: Make
    table: str | None
    verb: str

    def __call__(self, spec: ServerSpec, shard: int, serve: Any, /, *args: Any, **options: Any) -> Any:
        """In that process, whose gateway is `serve`."""
        attachments.serves(spec, shard, serve)
        server = self.make(spec)
        return perform(server if self.table is None else server[self.table], self.verb, *args, **options)


class Method:
    """A verb of a server or a table. Called directly, it runs in this process; `remote(...)` sends the call to the
    first shard's process and returns a Ray object reference."""

    def __init__(self, target: Any, make: Make, name: str) -> None:
        self._target, self._make, self._name = target, make, name

    def __call__(self, *args: Any, **options: Any) -> Any:
        return perform(self._target, self._name, *args, **options)

    def remote(self, *args: Any, **options: Any) -> Any:
        if self._name in HERE:
            raise OptionError(f"{self._name}.remote: {HERE[self._name]}")
        for option in LOCAL.keys() & options.keys():
            raise OptionError(
                f"{self._name}.remote: {option}= is {LOCAL[option]}; omit it, or call {self._name}() here"
            )
        attachment = self._target.attachment
        if attachment.closed:
            raise ClosedError(f"{self._name}.remote: {attachment.what_closed()}")
        call = Call(self._make, self._target.name if isinstance(self._target, TableReading) else None, self._name)
        return cluster.actor_of(attachment.spec, 0).perform.remote(call, *args, **options)

    def __repr__(self) -> str:
        return f"<{self._name} of {self._target!r}: call it, or {self._name}.remote(...)>"


def perform(target: Any, name: str, /, *args: Any, **options: Any) -> Any:
    """Calls a verb by its name; a property is a verb without arguments."""
    value = getattr(target, name)
    return value(*args, **options) if name not in ASKED or callable(value) else value


class ActorStyle:
    """Common to a server and its tables: each verb as a `Method`, everything else unchanged."""

    def __init__(self, target: Any, make: Make) -> None:
        self._target, self._make = target, make

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        verb = NAMES.get(name, name)
        if verb in ASKED and hasattr(type(self._target), verb):
            return Method(self._target, self._make, verb)
        value = getattr(self._target, verb)
        if isinstance(value, TableReading):
            return ActorStyleTable(value, self._make)
        if isinstance(value, Refusal):
            return value
        return Method(self._target, self._make, verb) if callable(value) else value

    def __dir__(self) -> list[str]:
        return dir(self._target)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._target, self._make)

    def __repr__(self) -> str:
        return f"<actor style {self._target!r}>"


class ActorStyleReader(ActorStyle):
    """What `reader` of such a server returns: a `fastps.Reader` whose verbs have `remote`."""

    def reader(self) -> ActorStyleReader:
        """A reader in this style: its tables and what it does by `remote` only read, too."""
        return ActorStyleReader(self._target.reader(), reader_of)

    def __getitem__(self, name: str) -> Any:
        found = self._target[name]
        return ActorStyleTable(found, self._make) if isinstance(found, TableReading) else found

    def __contains__(self, name: object) -> bool:
        return name in self._target

    def __iter__(self) -> Iterator[str]:
        return iter(self._target)

    def __len__(self) -> int:
        return len(self._target)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *NAMES]


class ActorStyleServer(ActorStyleReader):
    """What `ParameterServer.remote` returns.

    ``get_params.remote()`` and ``update_params.remote(grad)``, and verbs of ParameterServer in this way
    (``push.remote(grad)``, ``slots.remote("m")``, ``versions.remote()``), are Ray calls: the first shard's process
    executes them, in the order in which one process makes them. Verbs that make sense only in the calling process,
    those of `HERE`, raise OptionError by `remote`, with what to use instead. Without `remote`, a verb runs in the
    calling process and does not wait for calls under way; ``hyper()`` and ``versions()`` are methods here. ``ps[name]``
    and ``ps.table`` are tables in the same style, and so is what `reader` returns.
    """

    def __enter__(self) -> ActorStyleServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._target.close()


class ActorStyleTable(ActorStyle):
    """A table of such a server: ``ps["users"].pull.remote(keys)``."""

    def __len__(self) -> int:
        return len(self._target)

    def __contains__(self, key: Any) -> bool:
        return key in self._target
