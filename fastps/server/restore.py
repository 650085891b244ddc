"""Servers that begin with the state of a checkpoint."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from fastps.checkpoint.described import (
    consistency_from,
    gradients_from,
    hyper_from,
    require_same_rules,
    rules_from,
)
from fastps.checkpoint.load import load
from fastps.consistency import Consistency
from fastps.errors import OptionError
from fastps.messages import brief
from fastps.rules.assignment import assign
from fastps.server.handle import ParameterServer
from fastps.spec.placement import Placement


def restore(
    path: Any,
    *,
    num_shards: int | None = None,
    rule: Any = None,
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
        A directory that `save` has made.
    num_shards : int, optional
        As for `ParameterServer`; None: as many as were saved.
    rule : Rule, or mapping of patterns to rules, optional
        Needed for rules of your own, which must have the same source. Its hyper-parameters become the saved ones, which
        `configure` changes. None: those that were saved.
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
    RuleError, OptionError
        The rule is not the one that was saved, or is one of the user and was not passed. Nothing was started.
    """
    try:
        folder = Path(os.path.abspath(os.fsdecode(path)))
    except TypeError:
        raise OptionError(f"restore: expected a path, got {type(path).__name__} {brief(path)}") from None
    found = load(folder)
    server, structure = found.manifest.server, found.state.structure
    rule = rules_from(server.get("rules")) if rule is None else rule
    require_same_rules(server.get("rules"), assign(rule, [structure.leaves[i].name for i in structure.trained], [])[0])
    hyper, gradients = hyper_from(server.get("rules")), gradients_from(server.get("gradients"))
    policy = consistency_from(server.get("consistency"))
    ps = ParameterServer(
        found.state, rule=rule, num_shards=len(found.manifest.versions) if num_shards is None else num_shards,
        consistency=policy if consistency is None else consistency, isolation=isolation,
        clip_norm=_or_none(gradients.clip_norm), clip_value=_or_none(gradients.clip_value),
        nonfinite=gradients.nonfinite, placement=placement, name=name, timeout=timeout, max_sessions=max_sessions,
        max_workers=max_workers,
    )  # fmt: skip
    try:
        for pattern, values in hyper.items():
            if values:
                ps.configure(pattern, **values)
    except BaseException:
        ps.close()
        raise
    return ps


def _or_none(limit: float) -> float | None:
    return None if limit == math.inf else limit
