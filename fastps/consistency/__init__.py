"""Consistency policies, one per file: when a worker may begin its next step, and when its update counts.

csrc/clock.c makes the decisions, as a state machine without processes, time or waiting; these are its settings.
"""

from fastps.consistency.asynchronous import Async
from fastps.consistency.base import Consistency
from fastps.consistency.bsp import BSP
from fastps.consistency.local_sgd import LocalSGD
from fastps.consistency.ssp import SSP

__all__ = ["BSP", "SSP", "Async", "Consistency", "LocalSGD"]
