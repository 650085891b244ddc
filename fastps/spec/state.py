"""The names of the state of a server's arrays in one flat dict, as `ParameterServer.state_dict` returns it. Pure.

Parameters have their own names, everything else begins with PREFIX: savers, and programs that know nothing of fastps,
find the parameters where they look for them. What is variable stands at the end, since names may contain anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastps.errors import NamesError, OptionError
from fastps.messages import few
from fastps.spec.server import ServerSpec

PREFIX = "fastps:"
SLOTS, STEPS, HYPER = f"{PREFIX}slots/", f"{PREFIX}steps/", f"{PREFIX}hyper/"


@dataclass(frozen=True)
class StateNames:
    """The keys of the dict, in its order.

    Attributes
    ----------
    params : by key, the number of an array; one that comes twice in the parameters has two keys
    slots : by key, the number of an array, and that of the stream of its slot
    steps : by key, the number of an array that is trained
    hyper : by key, the index of a rule, and the name of one of its hyper-parameters
    constants : values that are no arrays, by their names, which are no keys
    """

    params: dict[str, int]
    slots: dict[str, tuple[int, int]]
    steps: dict[str, int]
    hyper: dict[str, tuple[int, str]]
    constants: dict[str, Any]

    def __iter__(self) -> Iterator[str]:
        for keys in (self.params, self.slots, self.steps, self.hyper):
            yield from keys

    def __contains__(self, key: object) -> bool:
        return any(key in keys for keys in (self.params, self.slots, self.steps, self.hyper))


def state_names_of(spec: ServerSpec, verb: str) -> StateNames:
    """Those of a server.

    Raises
    ------
    NamesError
        A parameter has a name that begins with PREFIX.
    OptionError
        The server has tables alone.
    """
    structure = spec.structure
    if not structure.leaves:
        raise OptionError(
            f"{verb}: the server has tables alone, whose rows are not in such a dict; use save(), or export() of each"
        )
    if structure.tree is None:
        numbers = {leaf.name: number for number, leaf in enumerate(structure.leaves)}
    else:
        numbers = {"/".join(path): number for path, number in structure.tree.paths()}
    reserved = [name for name in numbers if name.startswith(PREFIX)]
    if reserved:
        raise NamesError(f"{verb}: names that begin with {PREFIX!r} are fastps's own; rename {few(reserved)}")
    arrays = len(structure.leaves)
    slots = {
        f"{SLOTS}{slot}/{structure.leaves[leaf].name}": (leaf, stream)
        for stream, slot in enumerate([] if spec.consistency.local else spec.slot_names(), 1)
        for leaf in spec.leaves_with(slot)
    }
    return StateNames(
        params={name: number for name, number in numbers.items() if number < arrays},
        slots=slots,
        steps={f"{STEPS}{structure.leaves[leaf].name}": leaf for leaf in structure.trained},
        hyper={f"{HYPER}{name}/{rule.pattern}": (i, name) for i, rule in enumerate(spec.rules) for name in rule.hyper},
        constants={name: structure.constants[number - arrays] for name, number in numbers.items() if number >= arrays},
    )
