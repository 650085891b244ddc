"""``fastps demo``, in its two modes: fastps and a plain Ray actor, or the settings of consistency."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from fastps.cli import options
from fastps.programs.demo.consistency.policies import POLICIES
from fastps.programs.demo.consistency.settings import Settings as Comparison
from fastps.programs.demo.settings import Settings

NEEDS = {"rich": "rich", "sklearn": "scikit-learn"}
PLOT_NEEDS = {"plotly": "plotly"}


def policies(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if names == ["all"]:
        return list(POLICIES)
    unknown = [name for name in names if name not in POLICIES]
    if unknown:
        raise click.BadParameter(
            f"expected some of {', '.join(POLICIES)}, separated by commas, or all; got {unknown[0]!r}"
        )
    return list(dict.fromkeys(names))


@click.command("demo", short_help="Train on real data with fastps and with a plain Ray actor, and compare.")
@click.option(
    "--consistency",
    type=policies,
    metavar="NAMES",
    help=f"Compare settings of consistency: some of {','.join(POLICIES)}, or all.",
)
@click.option(
    "--steps",
    type=options.whole(1, 10_000_000),
    help="Training steps of each worker.",
    show_default=str(Settings.steps),
)
@click.option(
    "--seconds",
    type=options.number(0.1, 3600.0),
    help="With --consistency: training time under each setting.",
    show_default=f"{Comparison.seconds:g}",
)
@click.option(
    "--straggler",
    type=options.number(1.0, 1000.0),
    metavar="FACTOR",
    help="With --consistency: the last worker computes this many times as long.",
    show_default=f"{Comparison.straggler:g}",
)
@click.option(
    "--plot",
    type=options.page,
    metavar="FILE",
    help="With --consistency: write the loss over time to this file, as an HTML page.",
)
@click.option(
    "--workers",
    type=options.whole(1, 64),
    help="Worker processes.",
    show_default=f"{Settings.workers}; {Comparison.workers} with --consistency",
)
@options.shards
@options.seed("the split, the weights and the batches")
@options.address
def command(consistency: list[str] | None, plot: Path | None, address: str | None, **given: Any) -> str | None:
    """Trains a small network on the handwritten digits of scikit-learn, asynchronously, with fastps; then the same on a
    plain Ray actor; then compares them. With --consistency: once under each setting of consistency, with one slow
    worker. Needs scikit-learn and rich; with --plot also plotly.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    _require_fitting(chosen, consistency is not None, plot)
    options.require(NEEDS if plot is None else NEEDS | PLOT_NEEDS)
    if consistency is None:
        from fastps.programs.demo.run import demo

        return demo(Settings(**chosen), address)
    from fastps.programs.demo.consistency.run import compare

    return compare(consistency, Comparison(**chosen), address, plot)


def _require_fitting(chosen: dict[str, Any], comparing: bool, plot: Path | None) -> None:
    """Raises UsageError for options of the other mode."""
    if plot is not None and not comparing:
        raise click.UsageError("--plot goes with --consistency")
    known = {field.name for field in fields(Comparison if comparing else Settings)}
    for name in chosen:
        if name not in known:
            raise click.UsageError(f"--{name} {'is for the demo without' if comparing else 'goes with'} --consistency")
    if comparing and chosen.get("workers") == 1:
        raise click.UsageError("--workers: --consistency needs 2 or more, of which the last is the straggler")
