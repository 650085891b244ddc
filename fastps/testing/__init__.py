"""Oracles for tests, of fastps and of programs that use it: slow, plain, and right by reading.

- `Naive`: an update rule as it is written, one element after the other
- `ModelServer`: a parameter server in one process, without shards, shared memory or Ray
"""

from fastps.testing.model import ModelServer
from fastps.testing.naive import Naive

__all__ = ["ModelServer", "Naive"]
