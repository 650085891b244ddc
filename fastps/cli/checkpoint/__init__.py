"""``fastps checkpoint``: its commands, one a module. They need neither Ray nor numba nor the code of rules, and execute
nothing that a checkpoint says."""

from __future__ import annotations

from fastps.cli.checkpoint import export, ls, show, verify
from fastps.cli.group import Group

command = Group(
    "checkpoint",
    [ls.command, show.command, verify.command, export.command],
    short_help="List, show and verify checkpoints, and export them for other programs.",
    help="Reads checkpoints that ParameterServer.save has written. Changes none.",
    no_args_is_help=False,
)
