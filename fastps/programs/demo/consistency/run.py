"""The comparison of consistency settings from beginning to end. Called by the command line."""

from __future__ import annotations

from pathlib import Path

from fastps.cluster.program import own_ray
from fastps.programs.demo import network
from fastps.programs.demo.consistency.policies import POLICIES
from fastps.programs.demo.consistency.race import COMPUTATION, Finish, race, racers
from fastps.programs.demo.consistency.screen import progress, say_results
from fastps.programs.demo.consistency.settings import Settings
from fastps.programs.demo.digits import digits
from fastps.programs.demo.settings import BATCH, LR
from fastps.programs.screen import Screen


def compare(names: list[str], settings: Settings, address: str | None = None, plot: Path | None = None) -> str | None:
    """Trains once under each setting, prints the comparison, and plots it.

    Parameters
    ----------
    names : of POLICIES
    settings : what all runs have in common
    address : of a Ray cluster; None: RAY_ADDRESS, or a new one for the duration of the program
    plot : where a page with the loss over time is written; None: nowhere
    """
    screen = Screen()
    data = digits(settings.seed)
    screen.say(_about(settings, len(data.train_x)))
    finishes: list[Finish] = []
    needs = ["fastps.programs.demo.consistency.worker"]
    with own_ray(screen.waiting, screen.say, address, needs), racers(data, settings) as workers:
        for policy in map(POLICIES.__getitem__, names):
            with progress(screen, policy.title, settings.seconds) as show:
                finishes.append(race(policy, data, settings, workers, show))
    say_results(screen, finishes, settings)
    screen.say(f"\n{screen.total_time()}")
    if plot is not None:
        problem = _plot(plot, settings, finishes)
        if problem:
            return problem
        screen.say(f"The loss over time is in {plot}: open it in a browser, it needs no network.")
    return "; ".join(f"{finish.policy.title}: {finish.problem}" for finish in finishes if finish.problem) or None


def _about(settings: Settings, images: int) -> str:
    return (
        f"[bold]Handwritten digits[/]: {images:,} images to train on, network "
        f"{'-'.join(map(str, network.LAYERS))}, SGD, batches of {BATCH}; seed {settings.seed}.\n"
        f"{settings.workers} workers. In each step a worker sleeps for {COMPUTATION * 1e3:g} ms, in place of a larger "
        f"model's computation: so the number of cores does not matter.{_pace(settings)}\n"
        f"Learning rate {LR:g}; where a round takes the mean of n workers, n times that: a gradient moves the "
        f"parameters equally far under all settings.\n"
        f"The loss is over all training images, computed meanwhile by a process that is not a worker."
    )


def _pace(settings: Settings) -> str:
    if settings.straggler == 1.0:
        return ""
    return f" The last worker sleeps {settings.straggler:g} times as long."


def _plot(path: Path, settings: Settings, finishes: list[Finish]) -> str | None:
    # Imported late: plotly is needed for plots only.
    from fastps.programs.demo.consistency.plot import write

    straggler = "" if settings.straggler == 1.0 else f", one of them {settings.straggler:g} times slower"
    try:
        write(
            path,
            f"Training loss over time, {settings.workers} workers{straggler}",
            f"Handwritten digits, a network of two layers, SGD. Each step includes {COMPUTATION * 1e3:g} ms "
            f"of sleep.{_pace(settings)} The loss is over all training images, taken from the server while the "
            f"workers train.",
            {finish.policy.title: finish.curve for finish in finishes},
        )
    except OSError as error:
        return f"cannot write {path}: {error.strerror}"
    return None
