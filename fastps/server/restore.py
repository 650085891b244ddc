"""Servers that begin with the state of a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fastps.checkpoint.described import consistency_from, gradients_from, require_same_rules, rules_from
from fastps.checkpoint.load import load
from fastps.consistency import Consistency
from fastps.errors import OptionError
from fastps.messages import brief
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

    Parameters, slots, update counts and hyper-parameters are those of the saved server, bit for bit, so training goes on
    exactly; clocks and rounds begin at 0. All bytes are compared with their checksums before anything starts.

    Parameters
    ----------
    path : str or path
        A directory that `save` has made.
    num_shards : int, optional
        As for `ParameterServer`; None: as many as were saved.
    rule : Rule, or mapping of patterns to rules, optional
        Needed for rules of your own, which must have the same source. None: those that were saved.
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
    server = found.manifest.server
    if rule is None:
        rule = rules_from(server["rules"])
    else:
        require_same_rules(server["rules"], rule)
    gradients = gradients_from(server["gradients"])
    return ParameterServer(
        found.state, rule=rule, num_shards=len(found.manifest.versions) if num_shards is None else num_shards,
        consistency=consistency_from(server["consistency"]) if consistency is None else consistency,
        isolation=isolation, clip_norm=gradients.get("clip_norm"), clip_value=gradients.get("clip_value"),
        nonfinite=gradients.get("nonfinite", "apply"), placement=placement, name=name, timeout=timeout,
        max_sessions=max_sessions, max_workers=max_workers,
    )  # fmt: skip
