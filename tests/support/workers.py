"""What runs in Ray's worker processes. Here, and not in the tests, so that workers load no test library."""

from __future__ import annotations

import os
import sys
import threading
import time

import numpy as np
import ray


@ray.remote(num_cpus=0)
class Worker:
    """A process that holds a handle and does with it what a test asks for."""

    def __init__(self, ps=None):
        self.ps = ps

    def take(self, ps):
        self.ps = ps

    def pid(self):
        return os.getpid()

    def node_id(self):
        return ray.get_runtime_context().get_node_id()

    def pull(self):
        return self.ps.pull()

    def push(self, grads, times=1):
        for _ in range(times):
            self.ps.push(grads)

    def push_pull(self, grads):
        return self.ps.push_pull(grads)

    def versions(self):
        return self.ps.versions

    def stats(self):
        return self.ps.stats()

    def do(self, function, *args):
        """function(handle, *args) in this process."""
        return function(self.ps, *args)

    def error_of(self, function, *args):
        """The error that `do` raises: its class, its text, its notes, and the shards of a timeout; None without one."""
        try:
            function(self.ps, *args)
        except Exception as error:
            shards = [getattr(error, name, None) for name in ("applied", "partial", "pending")]
            return type(error), str(error), getattr(error, "__notes__", []), shards
        return None

    def push_ones(self, like, seconds):
        """Pushes ones for a while; how many."""
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            self.ps.push(like)
            count += 1
        return count

    def pull_torn(self, bounds, times):
        """Pulls; answers how many pulls held a shard whose elements were not all equal."""
        torn = 0
        for _ in range(times):
            found = self.ps.pull()
            torn += any((found[a:b] != found[a]).any() for a, b in bounds)
        return torn

    def push_from_threads(self, like, threads, times):
        """Threads of this process push and pull at once; the errors that they met."""
        errors = []

        def work():
            try:
                for _ in range(times):
                    self.ps.push(like)
                    self.ps.pull()
            except Exception as error:
                errors.append(repr(error))

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return errors

    def push_for_ever(self, like):
        """Until killed."""
        while True:
            self.ps.push(like)

    def modules(self):
        return sorted({name.split(".")[0] for name in sys.modules})

    def arenas(self):
        """How many arenas this process has mapped."""
        with open("/proc/self/maps") as maps:
            return sum("memfd:fastps" in line for line in maps)


@ray.remote(num_cpus=0)
def push_and_pull(ps, grads):
    ps.push(grads)
    return ps.pull(), os.getpid()


def push(ps, grads, timeout=None):
    ps.push(grads, timeout=timeout)


def pull(ps, timeout=None):
    return ps.pull(timeout=timeout)


def push_pull(ps, grads, timeout=None):
    return ps.push_pull(grads, timeout=timeout)


def pull_into(ps, shape, dtype, kind):
    """Pulls into an output of a kind; whether that was the object answered, and what it holds."""
    if kind == "fine":
        out = np.zeros(shape, dtype)
    elif kind == "read-only":
        out = np.zeros(shape, dtype)
        out.flags.writeable = False
    elif kind == "strided":
        out = np.zeros((*shape, 2), dtype)[..., 0]
    elif kind == "dtype":
        out = np.zeros(shape, np.int64)
    elif kind == "shape":
        out = np.zeros((*shape, 1), dtype)
    found = ps.pull(out=out)
    return found is out, out


def push_pull_in_place(ps, both):
    both = both.copy()
    return ps.push_pull(both, out=both) is both, both


def count_calls(ps, function, *args):
    """How many Ray actor calls `function` makes, by the name of the method."""
    import ray.actor

    calls = []
    original = ray.actor.ActorHandle._actor_method_call

    def counted(self, method_name, *positional, **named):
        calls.append(method_name)
        return original(self, method_name, *positional, **named)

    ray.actor.ActorHandle._actor_method_call = counted
    try:
        function(ps, *args)
    finally:
        ray.actor.ActorHandle._actor_method_call = original
    return calls
