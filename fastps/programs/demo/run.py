"""The demo from beginning to end. Called by the command line."""

from __future__ import annotations

from functools import partial

from fastps import SGD, ParameterServer
from fastps.cluster.program import own_ray
from fastps.programs.demo import network
from fastps.programs.demo.client import ActorClient, FastpsClient, PlainActor
from fastps.programs.demo.digits import digits
from fastps.programs.demo.measure import Outcome, measure
from fastps.programs.demo.screen import comparison, progress
from fastps.programs.demo.settings import BATCH, LR, Settings
from fastps.programs.screen import Screen

ACCURACY = 0.95  # that both sides must reach


def demo(settings: Settings, address: str | None = None) -> str | None:
    """Trains with fastps, trains on a plain Ray actor, prints the comparison.

    Parameters
    ----------
    settings : steps, workers, shards, seed
    address : of a Ray cluster; None: RAY_ADDRESS, or a new one for the duration of the program
    """
    screen = Screen()
    data = digits(settings.seed)
    screen.say(
        f"[bold]Handwritten digits[/]: {len(data.train_x):,} images to train on, {len(data.test_x)} to test with.\n"
        f"Network {'-'.join(map(str, network.LAYERS))}, {network.SIZE:,} float32 parameters "
        f"({network.SIZE * 4 / 1e3:.0f} KB), SGD({LR}), batches of {BATCH}.\n"
        f"{settings.workers} asynchronous workers, {settings.steps:,} steps each; seed {settings.seed} for split, "
        f"weights and batches."
    )
    total = settings.workers * settings.steps
    with own_ray(screen.waiting, screen.say, address, ["fastps.programs.demo.worker"]):
        params = network.initial(settings.seed)
        with (
            ParameterServer(network.named(params), rule=SGD(LR), num_shards=settings.shards) as server,
            progress(screen, "fastps", total) as show,
        ):
            ours = measure(partial(FastpsClient, server), data, settings, show)
            applied = server.versions
        actor = PlainActor.remote(params)  # type: ignore[attr-defined]  # Ray's decorator adds it
        with progress(screen, "Ray actor", total) as show:
            floor = measure(partial(ActorClient, actor, LR), data, settings, show)
    screen.say(comparison(ours, floor, settings))
    screen.say(
        f"Both ran the same worker code, in processes at nice {max(ours.nice, floor.nice)}; every single pull\n"
        f"and push was timed until it was complete. {screen.total_time()}"
    )
    if set(applied) != {total}:
        return f"the shards applied {applied} pushes where {total} were made"
    return _inaccurate({"fastps": ours, "the Ray actor": floor})


def _inaccurate(outcomes: dict[str, Outcome]) -> str | None:
    low = [f"{name} {outcome.accuracy:.1%}" for name, outcome in outcomes.items() if outcome.accuracy < ACCURACY]
    if not low:
        return None
    return f"test accuracy below {ACCURACY:.0%}: {' and '.join(low)}; more --steps train longer"
