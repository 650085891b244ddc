"""The comparison of consistency settings from beginning to end. Called by the command line."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from fastps.cluster.program import own_ray
from fastps.programs.demo import network
from fastps.programs.demo.data import digits
from fastps.programs.demo.policies import LR, POLICIES
from fastps.programs.demo.race import COMPUTATION, Finish, Settings, crew, race
from fastps.programs.demo.race_screen import RaceScreen
from fastps.programs.demo.worker import BATCH

__all__ = ["Settings", "compare"]


def compare(names: list[str], settings: Settings, address: str | None = None, plot: Path | None = None) -> str | None:
    """Trains once under each setting, prints the comparison, and plots it.

    Parameters
    ----------
    names : of POLICIES
    settings : what all runs have in common
    address : of a Ray cluster; None: RAY_ADDRESS, and otherwise a Ray of our own
    plot : where a page with the loss over time is written; None: nowhere

    Returns
    -------
    str or None
        What is wrong with the result; None when nothing is.

    Raises
    ------
    KeyboardInterrupt, ConnectionError, FastPSError
        Ray, if it was started here, is down again.
    """
    began = perf_counter()
    screen = RaceScreen()
    data = digits(settings.seed)
    screen.say(_about(settings, len(data.train_x)))
    finishes: dict[str, Finish] = {}
    with own_ray(screen.waiting, screen.say, address, ["fastps.programs.demo.worker"]), crew(data, settings) as workers:
        for name in names:
            with screen.race(POLICIES[name].title, settings.seconds) as watcher:
                finishes[name] = race(POLICIES[name], data, settings, workers, watcher)
    screen.table({name: (POLICIES[name], finish) for name, finish in finishes.items()}, settings)
    screen.say(f"\n{perf_counter() - began:.0f} s in all, Ray's start included.")
    if plot is not None:
        problem = _plot(plot, settings, finishes)
        if problem:
            return problem
        screen.say(f"The loss over time is in {plot}: open it in a browser, it needs no network.")
    problems = [f"{POLICIES[name].title}: {finish.problem}" for name, finish in finishes.items() if finish.problem]
    return "; ".join(problems) or None


def _about(settings: Settings, images: int) -> str:
    return (
        f"[bold]Handwritten digits[/]: {images:,} images to train on, network "
        f"{'-'.join(map(str, network.LAYERS))}, SGD, batches of {BATCH}; seed {settings.seed}.\n"
        f"{settings.workers} workers. In each step a worker sleeps for {COMPUTATION * 1e3:g} ms, in place of a larger "
        f"model's computation: so the number of cores does not matter.{_pace(settings)}\n"
        f"Learning rate {LR:g}; where a round takes the mean of n workers, n times that: a gradient moves the "
        f"parameters equally far under all settings.\n"
        f"The loss is over all training images, computed all the while by a process that is no worker."
    )


def _pace(settings: Settings) -> str:
    if settings.straggler == 1.0:
        return ""
    return f" The last worker sleeps {settings.straggler:g} times as long."


def _plot(path: Path, settings: Settings, finishes: dict[str, Finish]) -> str | None:
    # Late: nobody needs plotly who does not plot.
    from fastps.programs.demo.plot import write

    straggler = "" if settings.straggler == 1.0 else f", one of them {settings.straggler:g} times slower"
    try:
        write(
            path,
            f"Training loss over time, {settings.workers} workers{straggler}",
            f"Handwritten digits, a network of two layers, SGD. Each step includes {COMPUTATION * 1e3:g} ms "
            f"of sleep.{_pace(settings)} The loss is over all training images, taken from the server while the "
            f"workers train.",
            {POLICIES[name].title: finish.curve for name, finish in finishes.items()},
        )
    except OSError as error:
        return f"cannot write {path}: {error.strerror}"
    return None
