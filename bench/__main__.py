"""The command line of the benchmarks: ``python -m bench sweep``.

Exit codes: 0 it worked; 1 an answer was wrong; 2 the command could not be run as asked; 130 interrupted. Every failure
is one line on stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("RAY_worker_niceness", "0")

import click

from bench.sweep import grid as grids

WRONG, UNUSABLE, INTERRUPTED = 1, 2, 130
NORMAL: dict[str, Any] = {
    "shards": "1,2", "sizes": "80,8K,800K,8M,80M", "workers": "1,2", "ops": ",".join(grids.OPS), "rules": "add",
    "seconds": 0.5,
}  # fmt: skip
PRESETS: dict[str | None, dict[str, Any]] = {
    None: NORMAL,
    "quick": NORMAL | {"sizes": "80,80K,8M", "ops": "pull,push", "seconds": 0.25},
    "full": NORMAL
    | {"shards": "1,2,4", "sizes": "80,8K,80K,800K,8M,80M,400M", "workers": "1,2,4", "rules": "add,adam", "seconds": 2},
}


@click.group()
def main() -> None:
    """Measures fastps beside the machine's roof, and beside what one would otherwise write."""


def fail(message: str, code: int) -> NoReturn:
    click.echo(f"bench {click.get_current_context().info_name}: {message}", err=True)
    sys.exit(code)


@main.command()
@click.option("--shards", help=f"counts ({NORMAL['shards']})")
@click.option("--sizes", help=f"of the parameters, such as 8K or 2GiB ({NORMAL['sizes']})")
@click.option("--workers", help=f"counts ({NORMAL['workers']})")
@click.option("--ops", help=f"some of {','.join(grids.OPS)}")
@click.option("--rules", help=f"some of {','.join(grids.RULES)} ({NORMAL['rules']})")
@click.option("--peers", help="some of those in bench/peers (all)")
@click.option("--seconds", type=click.FloatRange(0.01, 600), help=f"of each operation ({NORMAL['seconds']:g})")
@click.option("--quick", "preset", flag_value="quick", help="few points, inside two minutes")
@click.option("--full", "preset", flag_value="full", help="all sizes, up to four workers, two rules")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="a Parquet file")
@click.option("--resume", is_flag=True, help="keep what --output has, and measure the rest")
def sweep(preset: str | None, output: Path | None, resume: bool, **given: Any) -> None:
    """Every combination of shards, sizes and workers. What is measured is kept, also after Ctrl-C."""
    options = PRESETS[preset] | {name: value for name, value in given.items() if value is not None}
    output = output or Path(f"sweep-{time.strftime('%Y%m%d-%H%M%S')}.parquet")
    try:
        grid = grid_of(options)
        peers = peers_of(options.get("peers"))
        kept = kept_of(output, resume)
    except ValueError as error:
        fail(str(error), UNUSABLE)
    if not os.access(output.parent, os.W_OK):
        fail(f"--output: {output.parent} is no directory that can be written", UNUSABLE)
    try:
        run_sweep(grid, peers, options, output, kept)
    except KeyboardInterrupt:
        fail(f"interrupted; {output} has what was measured: go on with --resume --output {output}", INTERRUPTED)


def grid_of(options: dict[str, Any]) -> grids.Grid:
    from fastps.capacity import available_bytes

    grid = grids.Grid(
        tuple(grids.sizes(options["sizes"])),
        tuple(grids.counts(options["shards"], "shards", 64)),
        tuple(grids.counts(options["workers"], "workers", 64)),
        tuple(grids.names(options["rules"], "rules", grids.RULES)),
        tuple(grids.names(options["ops"], "ops", grids.OPS)),
    )
    grid.require_memory(available_bytes())
    return grid


def peers_of(text: str | None) -> tuple[str, ...]:
    known = importlib.import_module("bench.sweep.run").PEERS
    return known if text is None else tuple(grids.names(text, "peers", known))


def kept_of(output: Path, resume: bool) -> Any:
    results = importlib.import_module("bench.sweep.results")
    if not resume:
        if output.exists():
            raise grids.GridError(f"--output: {output} is there already; take another name, or --resume")
        return None
    return results.load(output)


def run_sweep(grid: grids.Grid, peers: tuple[str, ...], options: dict[str, Any], output: Path, kept: Any) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from bench.sweep import loop, results, run
    from fastps import machine
    from fastps.demo.own_ray import own_ray

    done = kept.settings() if kept else set()
    settings = [setting for setting in grid.settings() if setting not in done]
    rows = list(kept.rows) if kept else []
    about = {
        "machine": machine.facts(), "commit": results.commit(), "options": options, "overhead_ns": loop.overhead(),
        "begun": kept.about["begun"] if kept else results.now(),
    }  # fmt: skip
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with own_ray(Quiet(), None), Progress(*columns, transient=True) as progress:
            task = progress.add_task("settings", total=len(settings))
            for measured in run.sweep(settings, grid.ops, options["seconds"], peers):
                rows += results.as_dicts(measured)
                found = results.Results(rows, about | {"ended": results.now()})
                results.save(found, output)
                for row in measured:
                    progress.console.print(line_of(row), highlight=False, soft_wrap=True)
                progress.advance(task)
    except run.WrongAnswer as error:
        fail(str(error), WRONG)
    if rows:
        beside = output.with_suffix(".json")
        beside.write_text(json.dumps(results.as_pytest_benchmark(results.load(output)), indent=1))
        click.echo(f"{output} and {beside}")


class Quiet:
    """Says nothing while Ray starts."""

    def waiting(self, text: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def line_of(row: Any) -> str:
    setting, summary = row.setting, row.summary
    roof = "" if row.to_roof is None else f"{row.to_roof:8.2f} x roof"
    floor = "" if row.to_floor is None else f"{row.to_floor:9.1f} x as fast as the floor"
    return (
        f"{setting.nbytes:>12,} B  {setting.shards} shards  {setting.workers} workers  {setting.rule:<4} {row.op:<9} "
        f"{row.subject:<14} {row.rate:11,.0f}/s  p50 {summary['median_ns'] / 1e3:9.2f} us  "
        f"p99 {summary['p99_ns'] / 1e3:9.2f} us {roof}{floor if row.subject == 'fastps' else ''}"
    )


if __name__ == "__main__":
    main()
