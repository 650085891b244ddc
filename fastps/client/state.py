"""The state of a server's arrays as one flat dict, and back, for savers that know nothing of fastps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastps._core import Outcome
from fastps.arrays.types import Array
from fastps.client.arrays import ArraySession
from fastps.deadline import deadline_after, left_until
from fastps.errors import NamesError, OptionError, RuleError
from fastps.messages import brief, few
from fastps.scalars import real, whole
from fastps.spec.arrays import MOST_STEPS, Several, Structure
from fastps.spec.server import ServerSpec
from fastps.spec.state import PREFIX, StateNames, state_names_of

LOAD = "load_state_dict"


class Loaded(NamedTuple):
    """What `ParameterServer.load_state_dict` left out, as torch's `Module.load_state_dict` returns it.

    Attributes
    ----------
    missing_keys : what the state lacks; it stays as it was
    unexpected_keys : what the server lacks
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


def state_of(arrays: ArraySession, timeout: float | None) -> dict[str, Array]:
    """The whole state of the arrays. See `ParameterServer.state_dict`."""
    deadline = deadline_after(arrays.session.limit(timeout))
    spec = arrays.spec
    names = state_names_of(spec, "state_dict")
    streams, counts = arrays.everything(deadline, "state_dict")
    rows = arrays.hyper_by_row(left_until(deadline))
    state = {key: streams[0][leaf] for key, leaf in names.params.items()}
    state |= {key: streams[stream][leaf] for key, (leaf, stream) in names.slots.items()}
    state |= {key: np.array(counts[leaf], np.int64) for key, leaf in names.steps.items()}
    for key, (row, name) in names.hyper.items():
        state[key] = np.array(rows[row][spec.rules[row].hyper.index(name)], np.float64)
    return state


def load_state(arrays: ArraySession, state: Any, strict: bool, timeout: float | None) -> Loaded:
    """Replaces the state of the arrays, after everything was checked. See `ParameterServer.load_state_dict`."""
    deadline = deadline_after(arrays.session.limit(timeout))
    if not isinstance(state, Mapping):
        raise OptionError(f"{LOAD}: expected a dict of arrays by name, got {type(state).__name__}")
    spec = arrays.spec
    names = state_names_of(spec, LOAD)
    missing = [key for key in names if key not in state]
    unexpected = [key for key in state if key not in names and key not in names.constants]
    if strict and (missing or unexpected):
        raise _misfit(spec, names, state, missing, unexpected)
    given = arrays.session.resolve({key: state[key] for key in names if key in state}, left_until(deadline))
    _require_constants(names, state)
    values = _values(arrays, names, given)
    counts = {
        leaf: whole(f"{LOAD} `{key}`", given[key], 0, MOST_STEPS)
        for key, leaf in names.steps.items()
        if key in given and 0 in values.get(leaf, {})
    }
    hyper = _hyper(spec, names, given)
    _load(arrays, _together(arrays.structure, names, values, counts), values, counts, hyper, deadline)
    return Loaded(missing, unexpected)


def _together(
    structure: Structure, names: StateNames, values: Mapping[int, Mapping[int, Array]], counts: Mapping[int, int]
) -> list[tuple[int, ...]]:
    """The arrays that are set at once: all of which everything is there, and then those of which the same is there.
    What is carried has values alone, and goes with the first that have them."""
    everything = {leaf: {0} for leaf in names.params.values()}
    for leaf, stream in names.slots.values():
        everything[leaf].add(stream)
    found: dict[Any, list[int]] = {None: []}
    for leaf in [leaf for leaf in values if structure.leaves[leaf].trains]:
        streams = values[leaf].keys()
        complete = leaf in counts and streams == everything[leaf]
        found.setdefault(None if complete else (frozenset(streams), leaf in counts), []).append(leaf)
    parts = [leaves for leaves in found.values() if leaves]
    first: list[int] = next((leaves for leaves in parts if 0 in values[leaves[0]]), [])
    carried = [leaf for leaf in values if not structure.leaves[leaf].trains]
    if carried and not first:
        parts.append(first)
    first += carried
    return [tuple(sorted(leaves)) for leaves in parts]


def _load(
    arrays: ArraySession,
    parts: list[tuple[int, ...]],
    values: dict[int, dict[int, Array]],
    counts: dict[int, int],
    hyper: dict[str, dict[str, float | None]],
    deadline: float,
) -> None:
    outcome = Outcome()
    try:
        arrays.overwrite(parts, values, counts, deadline, outcome, LOAD)
    except BaseException as error:
        outcome.tell(error, "set")
        raise
    outcome = Outcome()
    try:
        for pattern, numbers in hyper.items():
            arrays.configure(pattern, numbers, left_until(deadline), outcome)
    except BaseException as error:
        outcome.tell(error, "change of hyper-parameters", "arrays are loaded; call load_state_dict again for the rest")
        raise


def _values(arrays: ArraySession, names: StateNames, given: Mapping[str, Any]) -> dict[int, dict[int, Array]]:
    """By the number of an array, and of the parameters' or a slot's stream, what is to be stored."""
    structure = arrays.structure
    several: dict[int, list[Any]] = {}
    for key, leaf in names.params.items():
        if key in given:
            several.setdefault(leaf, []).append(given[key])
    values = {leaf: {0: structure.value(leaf, Several(found), LOAD)} for leaf, found in several.items()}
    slots = arrays.spec.slot_names()
    for key, (leaf, stream) in names.slots.items():
        if key in given:
            value = structure.value(leaf, given[key], f"{LOAD} slot {slots[stream - 1]!r}")
            values.setdefault(leaf, {})[stream] = value
    return values


def _hyper(spec: ServerSpec, names: StateNames, given: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """The new hyper-parameters by pattern and name. None: the schedule gives it."""
    found: dict[str, dict[str, float | None]] = {}
    for key, (row, name) in names.hyper.items():
        if key not in given:
            continue
        rule, value = spec.rules[row], real(f"{LOAD} `{key}`", given[key])
        if math.isnan(value) and name not in rule.scheduled:
            raise RuleError(
                f"{LOAD} `{key}`: the state is that of a rule with a schedule for {name}, the server's is "
                f"{rule.label}; nothing was loaded, create the server with the same schedule"
            )
        number = None if math.isnan(value) else value
        rule.numbers({name: number}, f"{LOAD} `{key}`")  # it is finite
        found.setdefault(rule.pattern, {})[name] = number
    return found


def _require_constants(names: StateNames, state: Mapping[str, Any]) -> None:
    """Raises OptionError where the state has another value for what a server cannot change."""
    for name, constant in names.constants.items():
        if name not in state:
            continue
        try:
            same = bool(state[name] == constant)
        except Exception:  # whatever the class of the value raises
            same = False
        if not same:
            raise OptionError(
                f"{LOAD} `{name}`: it is no array, and a server cannot change it: expected {brief(constant)}, got "
                f"{brief(state[name])}; nothing was loaded, omit it"
            )


def _misfit(
    spec: ServerSpec, names: StateNames, state: Mapping[str, Any], missing: Sequence[str], unexpected: Sequence[Any]
) -> NamesError | RuleError:
    """The error for a state that is not this server's."""
    told = " and ".join(
        f"{what} {few(keys)}" for what, keys in (("missing", missing), ("unexpected", unexpected)) if keys
    )
    if not any(isinstance(key, str) and key.startswith(PREFIX) for key in [*state]):
        return NamesError(
            f"{LOAD}: {told}; nothing was loaded. A state without slots, as that of a model, is loaded by "
            f"strict=False, which leaves slots, update counts and hyper-parameters as they are"
        )
    arrays_fit = all(key not in names.params for key in missing) and all(
        isinstance(key, str) and key.startswith(PREFIX) for key in unexpected
    )
    if arrays_fit:
        return RuleError(
            f"{LOAD}: {told}: the state is that of another rule than {spec.rules_label}, or of another consistency "
            f"than {spec.consistency}; nothing was loaded. Create the server with those, or load what both have by "
            f"strict=False"
        )
    return NamesError(f"{LOAD}: {told}; nothing was loaded. What both have is loaded by strict=False")
