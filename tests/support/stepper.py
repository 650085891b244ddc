"""A program that takes part in a server's clocks without Ray: it forks workers that step until they are killed.

Reads a pickled ServerSpec, then lines: "<path> <seconds to sleep in a step> <steps, 0 for ever>" answers the pid of a
new worker, whose history goes to the file. SIGTERM ends a worker behind its step. Ends with its input.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time

import numpy as np

from fastps.client.attach import Attachment
from fastps.client.session import Session
from fastps.testing.history import Recorder
from fastps.workers.policies import worker_of


def uniform(array):
    """The value of all elements, or NaN."""
    return float(array[0]) if (array == array[0]).all() else float("nan")


def step(spec, path, pause, steps):
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    attachment = Attachment(spec)
    attachment.use(Session(spec, spec.nodes[0].node_id, None, lambda grads, timeout: grads, None))
    ones = np.ones(spec.structure.leaves[0].shape, spec.structure.leaves[0].dtype)
    out = np.empty_like(ones)
    with Recorder(worker_of(attachment, attachment.session.join(None, None)), path=path, value=uniform) as w:
        while not stopping and (steps == 0 or len(w.events) <= 2 * steps):
            w.pull(out=out)
            if pause:
                time.sleep(pause)
            if spec.consistency.rounds and w.clock % 3 == 2:
                w.push(ones, step=False)
            w.push(ones)


def main():
    spec = pickle.load(sys.stdin.buffer)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that are killed
    print("ready", flush=True)
    for line in sys.stdin.buffer:
        path, pause, steps = line.decode().split()
        pid = os.fork()
        if pid == 0:
            try:
                step(spec, path, float(pause), int(steps))
            finally:
                os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
