"""The operations of a sweep as a suite of pytest-benchmark: ``pytest bench/``.

A case is timed in this process, call by call, while its other workers do the same in processes of their own. A group
has the cases that differ only in the subject. In extra_info are percentiles of single calls, where there are enough,
and the ratios to the reference and the plain Ray actor, which are timed before and after. As in a sweep the answer is
checked first.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray as ray_package

import fastps
from bench import peers
from bench.harness.arguments import ITEM_BYTES
from bench.harness.loop import stamps
from bench.harness.sample import enough
from bench.peers import ACTOR, REFERENCES
from bench.sweep.run import after
from bench.sweep.worker import Work, Worker

SUBJECTS = ("fastps", *(name for name, peer in peers.PEERS.items() if not peer.joins))
SHARE = 0.2  # of a case's time, for the reference and the plain Ray actor each, before and after


class Case:
    """A subject, what it is compared with, this process and the other workers."""

    def __init__(self, nbytes: int, workers: int, op: str, subject: str, stack: contextlib.ExitStack) -> None:
        self.op, self.subject, self.calls = op, subject, 0
        elements, here = nbytes // ITEM_BYTES, ray_package.get_runtime_context().get_node_id()
        self.subjects: dict[str, Any] = {}
        for name in dict.fromkeys((subject, REFERENCES[op], ACTOR)):
            if name == "fastps":
                self.subjects[name] = stack.enter_context(fastps.ParameterServer(np.zeros(elements, np.float32)))
            else:
                self.subjects[name] = peers.module(name).create(elements, workers, here, "add")
                stack.callback(getattr(self.subjects[name], "close", lambda: None))
        self.others = [Worker.remote() for _ in range(workers - 1)]
        for worker in self.others:
            stack.callback(ray_package.kill, worker)
        ray_package.get([worker.take.remote(elements, self.subjects) for worker in self.others])
        self.mine = Work()
        self.mine.take(elements, self.subjects)
        self.operation = self.mine.operation(subject, op)

    @contextlib.contextmanager
    def others_at_work(self, subject: str, seconds: float) -> Iterator[None]:
        """So long, and at least for the block's beginning."""
        runs = [worker.run.remote(subject, self.op, seconds, time.time()) for worker in self.others]
        yield
        calls = sum(calls for _, _, calls in ray_package.get(runs))
        self.calls += calls if subject == self.subject else 0

    def median(self, subject: str, seconds: float) -> float:
        """Of single calls in this process, in seconds."""
        with self.others_at_work(subject, seconds):
            found = np.diff(stamps(self.mine.operation(subject, self.op), seconds))
        self.calls += len(found) if subject == self.subject else 0
        return float(np.median(found)) / 1e9

    def check(self) -> None:
        """What was pushed is there."""
        server = self.subjects[self.subject]
        private = self.subject != "fastps" and peers.PEERS[self.subject].private
        if self.op != "pull" and not private:
            assert self.subject != "fastps" or server.versions == (self.calls,)
            assert self.mine.look(self.subject) == (after(self.calls, 1.0),) * 2


@pytest.mark.parametrize("subject", SUBJECTS)
def test_operation(
    benchmark: Any, ray: None, request: pytest.FixtureRequest, nbytes: int, workers: int, op: str, subject: str
) -> None:
    seconds = request.config.option.seconds
    benchmark.group = f"{op} {nbytes:,} B {workers} workers"
    with contextlib.ExitStack() as stack:
        case = Case(nbytes, workers, op, subject, stack)
        medians: dict[str, list[float]] = {"reference": [], "actor": []}

        def others() -> None:
            medians["reference"].append(case.median(REFERENCES[op], SHARE * seconds))
            medians["actor"].append(case.median(ACTOR, SHARE * seconds))

        others()
        pace = case.median(subject, SHARE * seconds)
        rounds = max(5, round(seconds / pace))
        with case.others_at_work(subject, 2 * seconds):
            benchmark.pedantic(case.operation, rounds=rounds, iterations=1, warmup_rounds=1)
        case.calls += 1 if benchmark.disabled else 1 + rounds
        others()
        case.check()
    if not benchmark.disabled:
        durations = np.array(benchmark.stats.stats.data)
        shown = [p for p in (50, 90, 99, 99.9, 99.99) if enough(len(durations), p)]
        percentiles = {f"p{p:g}": float(np.percentile(durations, p)) for p in shown}
        reference, actor = (float(np.mean(found)) for found in medians.values())
        benchmark.extra_info.update(percentiles | {"to_reference": percentiles["p50"] / reference})
        benchmark.extra_info["to_actor"] = actor / percentiles["p50"]
