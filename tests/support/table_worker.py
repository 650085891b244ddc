"""A program that attaches to a server of its node without Ray and forks processes that work on one of its tables.

Reads a pickled (ServerSpec, path of the ledger), then jobs, each a line of JSON; answers the pid of the process that
does it. Ends with its input. The ledger is a file of a few words a job, which its process writes and the test reads.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import dataclass

import numpy as np

from fastps.transport.contract import Operation
from fastps.transport.shm import ShmEndpoint
from tests.support.waiting import GUARD_SECONDS

BEGUN, FINISHED, STOP = range(3)  # words of a job: pushes begun and finished; set by the test: end
WORDS, JOBS = 4, 256


@dataclass(frozen=True)
class Job:
    """What a process does, over and over.

    Attributes
    ----------
    slot : its words of the ledger
    verb : "push" ones, or "churn": create rows, and evict them
    size : keys at a time
    fresh : so many of them were never used before by this job; two such jobs create the same rows
    space : the others are drawn from so many keys before the first of those
    base : the smallest key
    times : how often
    seed : of what is drawn
    table : which
    """

    slot: int
    verb: str = "push"
    size: int = 1
    fresh: int = 0
    space: int = 1
    base: int = 0
    times: int = 1 << 60
    seed: int = 0
    table: int = 0

    def keys(self, i: int) -> np.ndarray:
        """Of the i-th time."""
        old = np.random.default_rng([self.seed, self.slot, i]).integers(0, self.space, self.size - self.fresh)
        return self.base + np.concatenate([old, self.space + i * self.fresh + np.arange(self.fresh)])


def ledger_of(path, mode="r+"):
    return np.memmap(path, np.uint64, mode, shape=(JOBS, WORDS))


def work(endpoint: ShmEndpoint, ledger: np.ndarray, job: Job) -> None:
    info, limit, words = endpoint.verbs.tables[job.table].info, endpoint.verbs.spec.timeout, ledger[job.slot]
    ones = np.ones((job.size, info.dim), info.dtype)
    rows = np.empty_like(ones)
    wanted = [False] * len(info.streams)
    for i in range(job.times):
        if words[STOP]:
            break
        keys = job.keys(i).astype(np.uint64)
        words[BEGUN] = i + 1
        if job.verb == "push":
            endpoint.start(Operation(job.table, keys, [ones]), limit).finish()
        else:
            endpoint.start(Operation(job.table, keys, outs=[rows]), limit).finish()
            endpoint.ask("remove", job.table, keys, wanted, timeout=limit)
        words[FINISHED] = i + 1


def main() -> None:
    spec, path = pickle.load(sys.stdin.buffer)
    endpoint = ShmEndpoint.of_leaves(spec, tuple(range(len(spec.plans))))
    ledger = ledger_of(path)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that are killed
    print("ready", flush=True)
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work(endpoint, ledger, Job(**json.loads(line)))
                code = 0
            finally:
                os._exit(code)
        print(pid, flush=True)


class Workers:
    """That program, as the test sees it."""

    def __init__(self, ps, directory) -> None:
        self.path = directory / "ledger"
        self.ledger = ledger_of(self.path, "w+")
        self.jobs: list[tuple[Job, int]] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.table_worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        spec = dataclasses.replace(ps.attachment.spec, actors=())
        self._process.stdin.write(pickle.dumps((spec, str(self.path))))
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"ready\n"

    def start(self, **fields) -> Job:
        job = Job(slot=len(self.jobs), **fields)
        self._process.stdin.write(json.dumps(dataclasses.asdict(job)).encode() + b"\n")
        self._process.stdin.flush()
        self.jobs.append((job, int(self._process.stdout.readline())))
        return job

    def pid(self, job: Job) -> int:
        return self.jobs[job.slot][1]

    def kill(self, job: Job) -> None:
        os.kill(self.pid(job), signal.SIGKILL)

    def lives(self, job: Job) -> bool:
        """A zombie does: of its threads, one may still hold what the kernel hands over when it is gone."""
        return os.path.exists(f"/proc/{self.pid(job)}")

    def stop(self, *jobs: Job) -> None:
        """Lets them end by themselves; see `lives`."""
        for job in jobs:
            self.ledger[job.slot, STOP] = 1

    def begun(self, job: Job) -> int:
        return int(self.ledger[job.slot, BEGUN])

    def finished(self, job: Job) -> int:
        return int(self.ledger[job.slot, FINISHED])

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for job, pid in self.jobs:
            if self.lives(job):
                os.kill(pid, signal.SIGKILL)
        self._process.stdin.close()
        assert self._process.wait(GUARD_SECONDS) == 0
        self._process.stdout.close()


if __name__ == "__main__":
    main()
