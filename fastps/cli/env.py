"""``fastps env``."""

from __future__ import annotations

import json

import click

from fastps.cli.options import as_json
from fastps.machine import facts


@click.command("env", short_help="Print what affects performance on this machine, for bug reports.")
@as_json
def command(as_json: bool) -> None:
    """Processor, scheduling, memory, system and versions. The output names no user, no host and no path of theirs."""
    found = facts.facts()
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for section, values in found.items():
        print(section)
        for name, value in values.items():
            print(f"  {name:<20} {'-' if value is None else value}")
