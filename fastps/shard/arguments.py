"""What arguments the verbs of messages take. Checked before a verb is called: messages are not trusted, and C relies on
the types, lengths and ranges of what it gets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastps._core import Decision
from fastps.messages import brief
from fastps.spec.server import ServerSpec

Fits = Callable[[Any, ServerSpec, Sequence[Any]], bool]
MOST_HYPER = 16  # FPS_MAX_HYPER and FPS_MAX_RULES in csrc/layout.h
MOST_WEIGHT = 2**16 - 1  # gradients of one worker in a decision


@dataclass(frozen=True)
class Kind:
    """A kind of argument.

    Attributes
    ----------
    expected : names it in errors
    fits : whether a value is of this kind, for this server, behind these arguments of the same call
    """

    expected: str
    fits: Fits


def _number(expected: str, least: int, most: int) -> Kind:
    return Kind(expected, lambda value, spec, before: type(value) is int and least <= value <= most)


def _is_table(value: Any, spec: ServerSpec, before: Sequence[Any]) -> bool:
    return type(value) is int and 0 <= value < len(spec.tables)


def _are_keys(value: Any, spec: ServerSpec, before: Sequence[Any]) -> bool:
    if type(value) is not np.ndarray or value.dtype != np.uint64 or value.ndim != 1:
        return False
    return bool(value.flags.c_contiguous and value.flags.aligned)


def _are_uses(value: Any, spec: ServerSpec, before: Sequence[Any]) -> bool:
    """`before` ends with the keys."""
    if type(value) is not np.ndarray or value.dtype != np.uint32 or value.shape != (len(before[-1]), 2):
        return False
    return bool(value.flags.aligned)


def _are_streams(value: Any, spec: ServerSpec, before: Sequence[Any]) -> bool:
    """`before` begins with the table's number."""
    streams = spec.tables[before[0]].streams
    return type(value) is list and len(value) == len(streams) and all(type(wanted) is bool for wanted in value)


def _are_hyper(value: Any, spec: ServerSpec, before: Sequence[Any]) -> bool:
    """NaN stands for a schedule."""
    return type(value) is dict and all(
        type(index) is int and 0 <= index < MOST_HYPER and type(number) in (int, float) and not math.isinf(number)
        for index, number in value.items()
    )


def _are_seconds(value: Any, spec: ServerSpec, before: Sequence[Any]) -> bool:
    return type(value) in (int, float) and value >= 0  # NaN is not


TABLE = Kind("the number of a table", _is_table)
TARGET = Kind("the number of a table, or None", lambda value, *more: value is None or _is_table(value, *more))
KEYS = Kind("uint64[n], contiguous", _are_keys)
USES = Kind("uint32[n, 2], for each key", _are_uses)
STREAMS = Kind("a bool for the values and each slot", _are_streams)
HYPER = Kind("numbers by the index of their hyper-parameter", _are_hyper)
RULE = _number("the number of a rule", 0, MOST_HYPER - 1)
COUNT = _number(f"a number up to {MOST_HYPER}", 0, MOST_HYPER)
SHARD = _number("the number of a shard", 0, 2**32 - 1)
ROWS = _number("a number of rows", 0, 2**32 - 1)
WORD = _number("a number of 64 bits", 0, 2**64 - 1)
TICK = _number("a number of ticks, from 1 on", 1, 2**32 - 1)
TEXT = Kind("text", lambda value, spec, before: type(value) is str)
SECONDS = Kind("seconds, 0 or more", _are_seconds)
LEASE = Kind("seconds, more than 0", lambda value, *more: _are_seconds(value, *more) and 0 < value <= 1e9)
RANK = _number("a rank", 0, 2**31 - 1)
ANY_RANK = Kind("a whole number, or None", lambda value, *more: value is None or type(value) is int)
WEIGHT = _number(f"a number of gradients up to {MOST_WEIGHT:,}", 0, MOST_WEIGHT)
DECISION = Kind(
    "a decision, on a server with rounds", lambda value, spec, _: type(value) is Decision and spec.consistency.rounds
)

# Of a gateway: those of `fastps.transport.shm.Verbs`, and of a shard's process. The timeout is not among them.
OF_SHARDS: Mapping[str, tuple[Kind, ...]] = {
    "reach": (DECISION,),
    "decision": (),
    "skipped": (),
    "configure": (TARGET, RULE, HYPER),
    "hyper": (TARGET, RULE, COUNT),
    "counters": (TARGET,),
    "find": (TABLE, KEYS),
    "seen": (TABLE, KEYS),
    "remove": (TABLE, KEYS, STREAMS),
    "resume": (TABLE, SHARD, WORD, TICK),
    "use": (TABLE, KEYS, USES),
    "scan": (TABLE, SHARD, WORD, ROWS, STREAMS),
    "make_room": (TABLE, ROWS, KEYS),
    "coordinator": (TEXT,),
}

# Of a coordinator, where the timeout is an argument.
OF_COORDINATOR: Mapping[str, tuple[Kind, ...]] = {
    "join": (WORD, ANY_RANK, LEASE, SECONDS),
    "adopt": (WORD, RANK, WORD, LEASE),
    "begin": (WORD, SECONDS),
    "end_step": (WORD, WORD, SECONDS),
    "give": (WORD, WORD, WEIGHT, SECONDS),
    "rejoin": (WORD, SECONDS),
    "catch_up": (WORD, WORD, SECONDS),
    "renew": (WORD,),
    "leave": (WORD,),
}


def require(verbs: Mapping[str, tuple[Kind, ...]], verb: Any, arguments: Any, spec: ServerSpec) -> None:
    """Raises ValueError for a verb that is not among `verbs`, and for arguments that it does not take."""
    if type(verb) is not str or verb not in verbs:
        raise ValueError(f"no verb {brief(verb)}")
    kinds = verbs[verb]
    if type(arguments) is not list or len(arguments) != len(kinds):
        raise ValueError(f"{verb}: expected {len(kinds)} arguments, got {brief(arguments)}")
    for i, (kind, value) in enumerate(zip(kinds, arguments, strict=True)):
        if not kind.fits(value, spec, arguments[:i]):
            raise ValueError(f"{verb}: argument {i}: expected {kind.expected}, got {brief(value)}")
