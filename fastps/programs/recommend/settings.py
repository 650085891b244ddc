"""The options of a training run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What the command line says, and the defaults.

    Attributes
    ----------
    dim : factors of a user and of a movie, besides the bias
    epochs : how often each rating is trained on
    batch : ratings in a step of a worker
    workers, shards : how many
    seed : of everything random: split, initial rows, order of the ratings
    """

    dim: int = 50
    epochs: int = 15
    batch: int = 500
    workers: int = 2
    shards: int = 2
    seed: int = 1
