"""Ten parameters on two servers of five each, and two workers that concatenate parameters and split gradients.

Written for two Ray actors; their class is imported now. In a new program ``fastps.ParameterServer(10, num_shards=2)``
does both.
"""

import time

import numpy as np
import ray

from fastps import ParameterServer

STEPS = 20

ray.init()


@ray.remote
def worker(*servers):
    for _ in range(STEPS):
        params = np.concatenate(ray.get([ps.get_params.remote() for ps in servers]))
        time.sleep(0.1)  # a model would compute its gradient here
        grads = np.split(np.ones_like(params), len(servers))
        pushed = [ps.update_params.remote(grad) for ps, grad in zip(servers, grads, strict=True)]
    ray.get(pushed)  # calls of one worker are executed in order: the last ones done, all are


servers = [ParameterServer.remote(5) for _ in range(2)]
workers = [worker.remote(*servers) for _ in range(2)]

# The workers go on while we look.
for _ in range(3):
    time.sleep(1)
    print(*ray.get([ps.get_params.remote() for ps in servers]))

ray.get(workers)
print("final", *ray.get([ps.get_params.remote() for ps in servers]))
