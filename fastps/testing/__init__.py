"""Oracles for tests, of fastps and of programs that use it: slow, plain, and right by reading.

- `naive`: every update rule a second time, as numpy writes it, equal to the compiled kernel bit for bit
- `ModelServer`: a parameter server in one process, without shards, shared memory or Ray
"""

from fastps.testing.model import ModelServer

__all__ = ["ModelServer"]
