"""Two workers add ones to ten shared parameters: each pulls, computes, pushes."""

import numpy as np
import ray

import fastps

ps = fastps.ParameterServer(np.zeros(10, np.float32), num_shards=2)


@ray.remote
def worker(ps):
    for _ in range(100):
        params = ps.pull()
        ps.push(np.ones_like(params))


ray.get([worker.remote(ps) for _ in range(2)])
print(ps.pull())
