"""What `python -m bench sweep` does: from options to a file, with a line for each row and a bar meanwhile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench import peers
from bench.sweep import grid as grids
from bench.sweep import loop, results, run
from bench.sweep.cluster import cluster
from bench.sweep.placement import PLACEMENTS
from fastps import machine
from fastps.address import require_answer
from fastps.capacity import available_bytes

MOST = 64  # shards and workers
COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def grid_of(options: dict[str, Any]) -> grids.Grid:
    """Raises ValueError."""
    grid = grids.Grid(
        tuple(grids.sizes(options["sizes"])),
        tuple(grids.counts(options["shards"], "shards", MOST)),
        tuple(grids.counts(options["workers"], "workers", MOST)),
        tuple(grids.names(options["rules"], "rules", grids.RULES)),
        tuple(grids.names(options["ops"], "ops", grids.OPS)),
        tuple(grids.names(options["transport"], "transport", grids.TRANSPORTS)),
        grids.names(options["placement"], "placement", PLACEMENTS)[0],
    )
    if not options["address"]:
        grid.require_memory(available_bytes())
    elif options["address"] != "auto":
        require_answer(options["address"])
    return grid


def peers_of(text: str | None) -> tuple[str, ...]:
    """Raises GridError."""
    installed = peers.installed()
    if text is None:
        return installed
    if text == "":
        return ()
    wanted = grids.names(text, "peers", tuple(peers.PEERS))
    for name in wanted:
        if name not in installed:
            raise grids.GridError(f"peers: {name} needs {peers.PEERS[name].requires}: pip install it, or leave it away")
    return tuple(wanted)


def kept_of(output: Path, resume: bool, options: dict[str, Any]) -> results.Results | None:
    """What the file has already. Raises GridError or ResultsError, also when it was measured in another way."""
    if resume:
        kept = results.load(output)
        before, now = kept.about["options"] | kept.about["commit"], options | results.commit()
        for name in ("ops", "peers", "seconds", "id"):
            if before.get(name) != now.get(name):
                what = "commit" if name == "id" else f"--{name}"
                raise grids.GridError(
                    f"--resume: {output} was measured with {what} {before.get(name)}, and this is {now.get(name)}; "
                    "go on as it was begun, or take another file"
                )
        return kept
    if output.exists():
        raise grids.GridError(f"--output: {output} is there already; take another name, or --resume")
    return None


def program(
    grid: grids.Grid, names: tuple[str, ...], options: dict[str, Any], output: Path, kept: results.Results | None
) -> Path | None:
    """Measures what is missing and keeps every setting at once. Answers the JSON file beside the output, if any.

    Raises GridError when the cluster cannot do it, WrongAnswer, KeyboardInterrupt.
    """
    done = kept.settings() if kept else set()
    settings = [setting for setting in grid.settings() if setting not in done]
    rows = list(kept.rows) if kept else []
    console = Console()
    waiting = console.status if console.is_terminal else quiet
    with cluster(waiting, options["address"], options["local_cluster"]) as nodes:
        about = {
            "machine": machine.facts(), "commit": results.commit(), "options": options, "overhead_ns": loop.overhead(),
            "nodes": [asdict(node) for node in nodes], "begun": kept.about["begun"] if kept else results.now(),
        }  # fmt: skip
        with Progress(*COLUMNS, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("settings", total=len(settings))
            for measured in run.sweep(settings, grid.ops, options["seconds"], names, nodes):
                rows += results.as_dicts(measured)
                results.save(results.Results(rows, about | {"ended": results.now()}), output)
                print_rows(console, measured)
                progress.advance(task)
    if not rows:
        return None
    beside = output.with_suffix(".json")
    beside.write_text(json.dumps(results.as_pytest_benchmark(results.load(output)), indent=1))
    return beside


def quiet(text: str) -> AbstractContextManager[None]:
    """What a file is told of waiting."""
    return nullcontext()


def print_rows(console: Console, rows: Sequence[run.Row]) -> None:
    for row in rows:
        console.print(line_of(row), highlight=False, soft_wrap=True)


def line_of(row: run.Row) -> str:
    setting, summary = row.setting, row.summary
    roof = "" if row.to_roof is None else f"{row.to_roof:8.2f} x roof"
    floor = "" if row.to_floor is None else f"{row.to_floor:9.1f} x as fast as the floor"
    over = "/".join(sorted(set(row.transports)))
    return (
        f"{setting.nbytes:>12,} B  {setting.shards} shards  {setting.workers} workers  {setting.rule:<4} {row.op:<9} "
        f"{row.subject:<14} {over:<9} {row.rate:11,.0f}/s  p50 {summary['median_ns'] / 1e3:9.2f} us  "
        f"p99 {summary['p99_ns'] / 1e3:9.2f} us {roof}{floor if row.subject == 'fastps' else ''}"
    )
