"""One parameter server and two workers, written for a Ray actor.

The only change to the program: the server's class is imported, where it was a class of its own under @ray.remote.
"""

import time

import numpy as np
import ray

from fastps import ParameterServer

STEPS = 20


@ray.remote
def worker(ps):
    for _ in range(STEPS):
        params = ray.get(ps.get_params.remote())
        time.sleep(0.1)  # a model would compute its gradient here
        pushed = ps.update_params.remote(np.ones_like(params))
    ray.get(pushed)  # calls of one worker are executed in order: the last one done, all are


ray.init()
ps = ParameterServer.remote(10)
workers = [worker.remote(ps) for _ in range(2)]

# The workers go on while we look.
for _ in range(3):
    time.sleep(1)
    print(ray.get(ps.get_params.remote()))

ray.get(workers)
print("final", ray.get(ps.get_params.remote()))
