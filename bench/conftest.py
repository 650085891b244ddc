"""Options and the Ray of ``pytest bench/``."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("RAY_worker_niceness", "0")

import pytest

from bench.harness import arguments
from bench.harness.raylets import quiet
from bench.sweep.grid import OPS


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastps")
    group.addoption("--sizes", default="80,8K,800K,8M", help="of the parameters (80,8K,800K,8M)")
    group.addoption("--workers", default="1,2", help="counts; one of them is pytest's process (1,2)")
    group.addoption("--ops", default="pull,push,push_pull", help="some of pull,push,push_pull")
    group.addoption("--seconds", default=0.3, type=float, help="of each case (0.3)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"nbytes", "workers", "op"} <= set(metafunc.fixturenames):
        options = metafunc.config.option
        try:
            metafunc.parametrize("nbytes", arguments.sizes(options.sizes))
            metafunc.parametrize("workers", arguments.counts(options.workers, "workers", 64))
            metafunc.parametrize("op", arguments.names(options.ops, "ops", OPS))
            if not 0.001 <= options.seconds <= 600:  # NaN included
                raise arguments.ArgumentError(f"seconds: expected a number from 0.001 to 600, got {options.seconds}")
        except arguments.ArgumentError as error:
            raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def ray() -> Iterator[None]:
    from fastps.cluster.program import own_ray

    with own_ray(quiet, print, None, ["bench.sweep.worker"]):
        yield
