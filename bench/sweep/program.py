"""What `python -m bench sweep` does: from options to a file, with a line for each row and a bar meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench import peers
from bench.harness import arguments, loop
from bench.harness.arguments import ArgumentError
from bench.harness.machine import commit, processor
from bench.harness.raylets import quiet
from bench.sweep import grid as grids
from bench.sweep import results, run
from bench.sweep.cluster import cluster
from bench.sweep.placement import PLACEMENTS
from fastps.cluster.address import require_reachable
from fastps.machine import facts as machine
from fastps.machine.capacity import available_bytes
from fastps.machine.packages import install

MOST = 64  # shards and workers
GRID = ("shards", "sizes", "workers", "rules", "transport", "placement")  # options that are lists of what settings have
COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def grid_of(options: dict[str, Any]) -> grids.Grid:
    """Raises ValueError."""
    grid = grids.Grid(
        tuple(arguments.sizes(options["sizes"])),
        tuple(arguments.counts(options["shards"], "shards", MOST)),
        tuple(arguments.counts(options["workers"], "workers", MOST)),
        tuple(arguments.names(options["rules"], "rules", grids.RULES)),
        tuple(arguments.names(options["ops"], "ops", grids.OPS)),
        tuple(arguments.names(options["transport"], "transport", grids.TRANSPORTS)),
        tuple(arguments.names(options["placement"], "placement", PLACEMENTS)),
    )
    if not options["address"]:
        grid.require_memory(available_bytes())
    elif options["address"] != "auto":
        try:
            require_reachable(options["address"])
        except ValueError as error:
            raise ArgumentError(f"--address: {error}; omit it for a Ray of its own") from None
    return grid


def peers_of(text: str | None) -> tuple[str, ...]:
    """Raises ArgumentError."""
    installed = peers.installed()
    if text is None:
        return installed
    if text == "":
        return ()
    wanted = arguments.names(text, "peers", tuple(peers.PEERS))
    for name in wanted:
        if name not in installed:
            package = peers.PEERS[name].requires
            raise ArgumentError(f"peers: {name} needs {package}: {install(package)}; or omit {name}")
    return tuple(wanted)


def beside(output: Path) -> Path:
    """Where the same is written as JSON."""
    return output.with_suffix(".json")


def kept_of(output: Path, resume: bool) -> results.Results | None:
    """What the file has already. Raises ArgumentError or ResultsError, also where a file would be overwritten that no
    sweep has written."""
    if output.suffix != ".parquet":
        raise ArgumentError(f"--output: expected a name that ends in .parquet, got {output}; JSON is written beside it")
    if output.exists() and not resume:
        raise ArgumentError(f"--output: {output} is there already; take another name, or --resume")
    if beside(output).exists() and not (resume and results.is_pytest_benchmark(beside(output))):
        raise ArgumentError(
            f"--output: {beside(output)} is there already, where the same would be written as JSON; take another name"
        )
    return results.load(output) if resume else None


def require_same(kept: results.Results, options: dict[str, Any], names: tuple[str, ...]) -> None:
    """Raises ArgumentError when what `kept` has was measured in another way than what is asked for, or elsewhere."""
    before = kept.about["options"]
    peers_before = before["peers"] if before["peers"] is None else tuple(filter(None, before["peers"].split(",")))
    pairs = {
        "--ops": (before["ops"], options["ops"]),
        "--peers": (",".join(names if peers_before is None else peers_before), ",".join(names)),
        "--seconds": (before["seconds"], options["seconds"]),
        "commit": (kept.about["commit"].get("id"), commit().get("id")),
        "the processor": (processor(kept.about["machine"]), processor(machine.facts(steal_seconds=0))),
    }
    for what, (then, now) in pairs.items():
        if then != now:
            raise ArgumentError(
                f"--resume: it was begun with {what} {then}, and this is {now}; go on as it was begun, or take another "
                "file"
            )


def together(before: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options that a file keeps when a sweep goes on with `options`: in the lists of the grid, what it had comes
    first, or the next --resume would not know of it."""
    lists = {name: [*before[name].split(","), *options[name].split(",")] for name in GRID}
    return options | {name: ",".join(dict.fromkeys(part.strip() for part in parts)) for name, parts in lists.items()}


def program(
    grid: grids.Grid, names: tuple[str, ...], options: dict[str, Any], output: Path, kept: results.Results | None
) -> Path | None:
    """Measures what is missing of the grid and saves every setting at once. Returns the JSON file beside the output, if
    any.

    Raises ArgumentError when the cluster cannot do it, WrongAnswer, KeyboardInterrupt.
    """
    done = kept.settings() if kept else set()
    settings = [setting for setting in grid.settings() if setting not in done]
    rows = list(kept.rows) if kept else []
    lasting = together(kept.about["options"], options) if kept else options
    console = Console()
    waiting = console.status if console.is_terminal else quiet
    needs = ["bench.sweep.worker", *(f"bench.peers.{name}" for name in names)]
    say = partial(console.print, highlight=False, soft_wrap=True)
    with cluster(waiting, say, options["address"], options["local_cluster"], needs) as nodes:
        about = {
            "machine": machine.facts(), "commit": commit(), "overhead_ns": loop.overhead(),
            "options": lasting | {"peers": ",".join(names)},
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
    results.save_pytest_benchmark(results.load(output), beside(output))
    return beside(output)


def print_rows(console: Console, rows: Sequence[run.Row]) -> None:
    for row in rows:
        console.print(line_of(row), highlight=False, soft_wrap=True)


def line_of(row: run.Row) -> str:
    setting, summary = row.setting, row.summary
    reference = "" if row.to_reference is None else f"{row.to_reference:8.2f} x reference"
    actor = "" if row.to_actor is None else f"{row.to_actor:9.1f} x as fast as the plain actor"
    p99 = "" if summary["p99_ns"] is None else f"{summary['p99_ns'] / 1e3:9.2f} us"
    over = "/".join(sorted(set(row.transports)))
    return (
        f"{setting.nbytes:>12,} B  {setting.shards} shards  {setting.workers} workers  {row.work:<5} {row.op:<9} "
        f"{row.subject:<14} {over:<9} {row.rate:11,.0f}/s  p50 {summary['median_ns'] / 1e3:9.2f} us  "
        f"p99 {p99:>12} {reference}{actor if row.subject == 'fastps' else ''}"
    )
