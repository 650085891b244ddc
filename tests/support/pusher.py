"""A program that attaches to a server of its node without Ray and forks processes that push until they are killed.

Reads a pickled ServerSpec, then lines: "fork" answers the pid of a new pusher. Ends with its input.
"""

import os
import pickle
import signal
import sys

import numpy as np

from fastps.transport.contract import Operation
from fastps.transport.shm import ShmEndpoint


def main():
    spec = pickle.load(sys.stdin.buffer)
    endpoint = ShmEndpoint.of_leaves(spec, tuple(range(len(spec.plans))))
    ones = [np.ones(leaf.shape, leaf.dtype) for leaf in spec.structure.leaves]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that are killed
    print("ready", flush=True)
    for _ in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            while True:
                endpoint.start(Operation(grads=ones), spec.timeout).finish()
        print(pid, flush=True)


if __name__ == "__main__":
    main()
