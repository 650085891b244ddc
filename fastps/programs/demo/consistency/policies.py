"""The settings of consistency that the demo compares, each with a learning rate that makes them comparable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastps import BSP, SSP, Async, LocalSGD
from fastps.consistency import Consistency
from fastps.programs.demo.settings import LR


@dataclass(frozen=True)
class Policy:
    """One setting.

    Attributes
    ----------
    title : as a program writes it
    make : the setting for this many workers
    averaged : given the workers, how many gradients a round replaces by their mean; the learning rate is multiplied
        by it, so that a gradient moves the parameters equally far under all settings
    waits : who waits for whom, in a few words
    """

    title: str
    make: Callable[[int], Consistency]
    averaged: Callable[[int], int]
    waits: str

    def lr(self, workers: int) -> float:
        return LR * self.averaged(workers)


POLICIES = {
    "async": Policy("Async()", lambda n: Async(workers=n), lambda n: 1, "nobody waits for anybody"),
    "ssp": Policy(
        "SSP(2)", lambda n: SSP(2, workers=n), lambda n: 1, "nobody is more than 2 steps ahead of the slowest"
    ),
    "bsp": Policy("BSP()", lambda n: BSP(workers=n), lambda n: n, "a round waits for the gradients of all"),
    "backup": Policy(
        "BSP(backup=1)",
        lambda n: BSP(backup=1, workers=n),
        lambda n: n - 1,
        "a round goes on without the last gradient",
    ),
    "local": Policy(
        "LocalSGD(8)", lambda n: LocalSGD(8, workers=n), lambda n: n, "8 steps alone, then a round waits for all"
    ),
}
