"""The options of the demo, and what all its training runs have in common."""

from __future__ import annotations

from dataclasses import dataclass

LR = 0.1  # of the gradient of one worker
BATCH = 32  # images in a step of a worker


@dataclass(frozen=True)
class Settings:
    """What the command line says, and the defaults.

    Attributes
    ----------
    steps : of each worker
    workers, shards : how many
    seed : of everything random: split, initial weights, batches
    """

    steps: int = 6000
    workers: int = 2
    shards: int = 2
    seed: int = 1
