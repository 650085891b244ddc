"""The recommender from beginning to end. Called by the command line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ray

from fastps import ParameterServer
from fastps.cluster.program import own_ray
from fastps.programs.recommend.evaluate import Evaluation, evaluate
from fastps.programs.recommend.model import LR, tables
from fastps.programs.recommend.movielens import MovieLens, movielens
from fastps.programs.recommend.picks import ENOUGH_RATINGS, for_users, like_movies
from fastps.programs.recommend.screen import movies_table, progress, user_table
from fastps.programs.recommend.settings import Settings
from fastps.programs.recommend.train import train
from fastps.programs.screen import Screen


def recommend(settings: Settings, output: Path | None = None, address: str | None = None) -> str | None:
    """Trains, evaluates, recommends, saves.

    Parameters
    ----------
    settings : of the training
    output : the directory where the tables are written; None: a new temporary one
    address : of a Ray cluster; None: RAY_ADDRESS, or a new one for the duration of the program
    """
    screen = Screen()
    data = movielens(settings.seed)
    screen.say(_about(settings, data))
    with (
        own_ray(screen.waiting, screen.say, address, ["fastps.programs.recommend.worker"]),
        ParameterServer(tables(settings.dim, settings.seed), num_shards=settings.shards) as server,
    ):
        problem = _train(server, settings, data, screen)
        if problem:
            return problem
        for pick in for_users(server, data, settings.seed):
            screen.say()
            screen.say(user_table(pick))
        screen.say()
        screen.say(movies_table(like_movies(server, data)))
        screen.say(f"Only movies with {ENOUGH_RATINGS} ratings or more are recommended and compared.")
        problem = _save(server, output, screen)
    screen.say(screen.total_time())
    return problem


def _about(settings: Settings, data: MovieLens) -> str:
    return (
        f"[bold]MovieLens[/]: {len(data.train):,} ratings to train on, {len(data.test):,} to test with, "
        f"{len(data.titles):,} movies.\n"
        f"Two tables, users and movies, on {settings.shards} shards: a row is {settings.dim} factors and a bias.\n"
        f"{settings.workers} asynchronous workers, {settings.epochs} epochs, batches of {settings.batch:,}; "
        f"Adagrad({LR}); seed {settings.seed}."
    )


def _train(server: ParameterServer, settings: Settings, data: MovieLens, screen: Screen) -> str | None:
    total = settings.epochs * len(data.train)
    try:
        with progress(screen, total) as show:
            training = train(server, data.train, settings, show)
    except ray.exceptions.WorkerCrashedError:
        return "the process of a worker died"
    reached = evaluate(server, data)
    screen.say(
        f"{training.ratings:,} ratings in {training.seconds:.2f} s: {training.ratings / training.seconds:,.0f} "
        f"ratings/s.\n{len(server['users']):,} users and {len(server['movies']):,} movies have a row now.\n"
        f"[bold]Test RMSE {reached.model:.4f}[/]; {reached.movie_means:.4f} by the mean rating of each movie."
    )
    if training.ratings != total:
        return f"the workers trained on {training.ratings:,} ratings where {total:,} were given"
    return _inaccurate(reached)


def _inaccurate(reached: Evaluation) -> str | None:
    if reached.model < reached.movie_means:  # false for NaN
        return None
    return (
        f"test RMSE {reached.model:.4f} is no better than {reached.movie_means:.4f}, that of the mean rating of each "
        f"movie; more --epochs train longer"
    )


def _save(server: ParameterServer, output: Path | None, screen: Screen) -> str | None:
    try:
        if output is None:
            output = Path(tempfile.mkdtemp(prefix="fastps-recommend-"))
        output.mkdir(exist_ok=True)
        for name in ("users", "movies"):
            server[name].export(output / f"{name}.parquet")
    except OSError as error:
        return f"cannot write to {output or tempfile.gettempdir()}: {error.strerror or error}"
    screen.say(f"\nThe tables are in {output}: users.parquet and movies.parquet.")
    return None
