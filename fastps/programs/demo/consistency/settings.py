"""The options of the comparison of consistency settings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What the command line says, and the defaults.

    Attributes
    ----------
    workers, shards : how many
    straggler : the last worker, the straggler, sleeps this many times as long in each step; 1: it is no straggler
    seconds : of training under each setting of consistency
    seed : of everything random: split, initial weights, batches
    """

    workers: int = 4
    shards: int = 2
    straggler: float = 10.0
    seconds: float = 6.0
    seed: int = 1
