"""``fastps doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from fastps.cli.options import as_json
from fastps.machine import doctor, facts


@click.command("doctor", short_help="Find what harms latency or measurements on this machine, and how to fix it.")
@as_json
def command(as_json: bool) -> str | None:
    """Observes the machine for 0.2 s. Exit code 1 when something is poor. Changes nothing."""
    findings = doctor.examine(facts.facts())
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            print(f"{finding.verdict:<7}  {finding.name:<{width}}  {finding.found}")
            for line in filter(None, (finding.why, finding.command and f"$ {finding.command}")):
                print(f"{'':<7}  {'':<{width}}  {line}")
    poor = [finding.name for finding in findings if finding.verdict == "poor"]
    return f"poor: {', '.join(poor)}" if poor else None
