"""Executes messages from other nodes, for all shards of this node: bytes in, bytes out.

Called by the receiving end of a carrier, one message at a time. It knows neither Ray nor any other carrier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from fastps._core import Outcome
from fastps.arrays.types import Array
from fastps.deadline import deadline_after, left_until
from fastps.shard.arguments import OF_SHARDS, require
from fastps.shard.once import PAYLOADS, Once, Recent
from fastps.spec.server import ServerSpec
from fastps.transport import message, values
from fastps.transport.contract import MIXED, Buffer, Operation
from fastps.transport.layout import Layouts
from fastps.transport.message import Header
from fastps.transport.shm import ShmEndpoint, Verbs

LONGEST_QUESTION = 1 << 30  # bytes


class Gateway:
    """The receiving end of every carrier to this process.

    Parameters
    ----------
    spec : the server
    label : names the process in errors
    layouts : of the arrays in messages
    endpoint : to the shards of this node; its operations on arrays have the two buffers of these
    verbs : further verbs of this process, besides `Verbs`; the last argument is the timeout, the others
        are described in `fastps.shard.arguments`
    """

    def __init__(
        self,
        spec: ServerSpec,
        label: str,
        layouts: Layouts,
        endpoint: ShmEndpoint,
        verbs: Mapping[str, Callable[..., Any]],
    ) -> None:
        self._spec, self._label, self._layouts, self._endpoint, self._verbs = spec, label, layouts, endpoint, verbs
        self._shards = layouts.of(None).shards
        self._once = Once(label)
        self._replies: Recent[Array] = Recent(PAYLOADS)  # with pieces that are still to be fetched

    def serve(self, head: Buffer, *parts: Buffer) -> Buffer:
        """Serves a message: a header, followed by a payload that continues in `parts`. Returns the reply, which may be
        an error."""
        try:
            header = Header.unpack(head)
            if header.kind == message.QUESTION:
                return self._question(header, head, parts)
            if header.kind == message.REST:
                return self._rest(header)
            return self._operation(header, head, parts)
        except Exception as error:
            return message.failure(error, self._label)

    def _question(self, header: Header, head: Buffer, parts: tuple[Buffer, ...]) -> Buffer:
        payload = self._once.payload(header, head, parts, min(header.nbytes, LONGEST_QUESTION))
        if payload is None:
            return message.DONE
        verb, arguments = values.unpack(payload)
        if type(verb) is str and verb in Verbs.CHANGES:
            return self._once.reply(header, lambda: self._replied(verb, arguments, header.timeout))
        return self._replied(verb, arguments, header.timeout)

    def _replied(self, verb: Any, arguments: Any, timeout: float) -> bytes:
        try:
            return message.DONE + values.pack(self._ask(verb, arguments, timeout))
        except Exception as error:
            return message.failure(error, self._label)

    def _ask(self, verb: Any, arguments: Any, timeout: float) -> Any:
        require(OF_SHARDS, verb, arguments, self._spec)
        if verb in self._verbs:
            return self._verbs[verb](*arguments, timeout)
        if verb not in Verbs.CHANGES:
            return self._endpoint.ask(verb, *arguments, timeout=timeout)
        outcome = Outcome()
        try:
            return self._endpoint.ask(verb, *arguments, timeout=timeout, outcome=outcome)
        except BaseException as error:
            outcome.tell(error)
            raise

    def _operation(self, header: Header, head: Buffer, parts: tuple[Buffer, ...]) -> Buffer:
        """Executes an operation on all shards of this node, once for each (client, number). Returns the update counts
        and what was read. A payload that comes in several messages is kept until the last one."""
        message.require_operation(header, self._spec)
        info = self._spec.tables[header.table - 1] if header.table else None
        layout = self._layouts.of(header.leaves)
        payload = self._once.payload(header, head, parts, message.nbytes_of(header, layout, info))
        if payload is None:
            return message.DONE
        got, deadline = message.received(header, payload, layout, self._spec), deadline_after(header.timeout)
        operation, reply = self._in_rounds(got.operation), got.reply
        if operation.grads is None and operation.sets is None:
            versions = self._run(operation, header.timeout)
        else:
            versions, read = self._apply(header, operation)
            if not read:
                self._read(operation, left_until(deadline))
        packed = message.packed_versions(versions)
        reply[: len(packed)] = np.frombuffer(packed, np.uint8)
        if header.stop < reply.nbytes:
            self._replies.put(header.client, reply)
        return reply[: header.stop]

    def _in_rounds(self, operation: Operation) -> Operation:
        """A pull without a decision gets that of the last round that closed, on the node of shard 0."""
        if (
            operation.decision is None
            and operation.table is None
            and operation.outs is not None
            and self._spec.consistency.rounds
            and 0 in self._endpoint.shards
        ):
            return replace(operation, decision=self._endpoint.arenas[0].decision())
        return operation

    def _apply(self, header: Header, operation: Operation) -> tuple[tuple[int, ...], bool]:
        """The update counts of a push, and whether it has filled all of its `outs`."""
        before = self._once.applied(header)
        if before is not None:  # its reply was lost
            return before, operation.outs is None
        read = True

        def attempt(token: Any) -> tuple[int, ...]:
            nonlocal read
            # `outs` would miss what an earlier attempt has pushed.
            read = token is None or operation.table is not None or operation.outs is None
            outcome = Outcome()
            try:
                run = operation if read else replace(operation, outs=None)
                return self._run(run, header.timeout, token, outcome)
            except BaseException as error:
                outcome.tell(error)
                raise

        return self._once.run(header, attempt), read

    def _read(self, operation: Operation, timeout: float) -> None:
        """The pull of a push_pull that has been applied, which no error of the pull changes."""
        outcome = Outcome()
        outcome.end(self._endpoint.shards)
        try:
            pull = replace(operation, grads=None, sets=None, pulled=None, scale=1.0, create=False)
            self._run(pull, timeout)
        except BaseException as error:
            outcome.tell(error)
            raise

    def _run(
        self, operation: Operation, timeout: float, resume: Any = None, outcome: Outcome | None = None
    ) -> tuple[int, ...]:
        versions = self._endpoint.start(operation, timeout, resume, outcome).finish()
        return tuple([versions.get(shard, MIXED) for shard in self._shards])

    def _rest(self, header: Header) -> Buffer:
        """A further piece of the reply to this client's last operation; empty if the reply was dropped."""
        reply = self._replies.get(header.client)
        if reply is None or header.stop > reply.nbytes:
            return b""
        if header.stop == reply.nbytes:
            del self._replies[header.client]
        return reply[header.start : header.stop]
