"""Servers that begin with the state of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastps._core import Outcome
from fastps.checkpoint.described import (
    consistency_from,
    gradients_from,
    hyper_from,
    hyper_of_tables,
    require_same_rules,
    require_same_tables,
    rules_from,
    tables_from,
)
from fastps.checkpoint.files import unreadable
from fastps.checkpoint.load import load
from fastps.checkpoint.manifest import NAME
from fastps.checkpoint.remote import path_of
from fastps.checkpoint.series import newest_in
from fastps.consistency import Consistency
from fastps.errors import FileError, OptionError
from fastps.messages import brief
from fastps.scalars import whole
from fastps.server.handle import ParameterServer
from fastps.server.options import rules_of
from fastps.spec.partition import MAX_SHARDS
from fastps.spec.placement import Placement
from fastps.spec.table import Table, infos_of, with_sightings


def restore(
    path: Any,
    *,
    num_shards: int | None = None,
    rule: Any = None,
    tables: Mapping[str, Table] | None = None,
    consistency: Consistency | None = None,
    isolation: str = "shard",
    placement: Placement = None,
    name: str | None = None,
    timeout: float = 60.0,
    max_sessions: int = 128,
    max_workers: int = 64,
) -> ParameterServer:
    """A new server with the state that `ParameterServer.save` has written.

    Parameters, slots, update counts and hyper-parameters are those of the saved server, bit for bit, so training goes
    on exactly; clocks and rounds begin at 0. All bytes are compared with their checksums before anything starts.

    Parameters
    ----------
    path : str or path
        A directory that `save` has made, or one with those of `save_every`: the newest of these.
    num_shards : int, optional
        As for `ParameterServer`; None: as many as were saved.
    rule : Rule, or mapping of patterns to rules, optional
        Needed for rules of your own, which must have the same source. Its hyper-parameters become the saved ones, which
        `configure` changes. None: those that were saved.
    tables : mapping of names to fastps.Table, optional
        Other settings for tables, all of them; needed for an `on_evict` function, and for a rule of your own that only
        the table had. Dim, dtype, keys and the slots of the rule must be those that were saved.
    consistency : Consistency, optional
        None: as it was saved.
    isolation, placement, name, timeout, max_sessions, max_workers
        As for `ParameterServer`.

    Raises
    ------
    MissingFileError, FileError
        There is no checkpoint, or it cannot be read. Nothing was started.
    CheckpointError
        It is damaged, or of another format. Nothing was started.
    OptionError
        The rows of a table do not fit into one of so many shards. Nothing was started.
    RuleError, OptionError
        The rule is not the one that was saved, or is one of the user and was not passed. Nothing was started.
    """
    folder = path_of(path, "restore")
    try:
        if folder.is_dir() and not (folder / NAME).exists():
            folder = newest_in(folder)
    except FileError:
        raise
    except OSError as error:
        raise unreadable(folder, error) from error
    found = load(folder)
    server, structure = found.manifest.server, found.state.structure
    described, names = server.get("tables"), [structure.leaves[i].name for i in structure.trained]
    found_tables = tables_from(described, _named(tables), rule is not None)
    if rule is None and names:
        rule = rules_from(server.get("rules"))
    assignment, with_rules = rules_of(rule, names, found_tables)
    require_same_rules(server.get("rules"), assignment)
    shards = len(found.manifest.versions) if num_shards is None else whole("num_shards", num_shards, 1, MAX_SHARDS)
    infos = infos_of(with_sightings(with_rules), shards)
    require_same_tables(described, infos)
    for info in infos:
        if info.name in found.state.rows:
            found.state.rows[info.name].require_room(info, shards)
    hyper, of_tables = hyper_from(server.get("rules")), hyper_of_tables(described)
    gradients, policy = gradients_from(server.get("gradients")), consistency_from(server.get("consistency"))
    ps = ParameterServer(
        replace(found.state, tables=found_tables), rule=rule,
        num_shards=shards,
        consistency=policy if consistency is None else consistency, isolation=isolation,
        clip_norm=_or_none(gradients.clip_norm), clip_value=_or_none(gradients.clip_value),
        nonfinite=gradients.nonfinite, placement=placement, name=name, timeout=timeout, max_sessions=max_sessions,
        max_workers=max_workers,
    )  # fmt: skip
    try:
        arrays = ps.attachment.arrays or ps.attachment.attach()
        for pattern, values in hyper.items():
            if names and values:
                arrays.configure(pattern, values, None, Outcome())
        for table, values in of_tables.items():
            rows = ps.attachment.rows(ps.attachment.spec.table_names[table])
            rows.configure(rows.info.rule.numbers(values, "restore"), None, Outcome())
    except BaseException:
        ps.close()
        raise
    return ps


def _named(tables: Any) -> Mapping[str, Table]:
    given = {} if tables is None else tables
    if not isinstance(given, Mapping) or not all(isinstance(table, Table) for table in given.values()):
        raise OptionError(f"restore tables: expected a mapping of names to fastps.Table, got {brief(tables)}")
    return given


def _or_none(limit: float) -> float | None:
    return None if limit == math.inf else limit
