"""Four workers, of which one is ten times slower, train on handwritten digits under five settings of consistency.

Prints the loss over time. Needs scikit-learn, for the images. Writes the loss as a chart to consistency.html where
plotly is installed.
"""

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import ray

import fastps
from fastps.programs.demo.consistency.curve import Curve
from fastps.programs.demo.digits import digits
from fastps.programs.demo.network import SIZE, initial, loss, loss_and_gradients, named

WORKERS, LOOKS = 4, 60
SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0  # under each setting

# A round applies the mean of its gradients, or of its workers' local updates: so its learning rate is larger.
SETTINGS = [
    (fastps.Async(workers=WORKERS), 0.1),
    (fastps.SSP(2, workers=WORKERS), 0.1),
    (fastps.BSP(workers=WORKERS), 0.1 * WORKERS),
    (fastps.BSP(backup=1, workers=WORKERS), 0.1 * (WORKERS - 1)),
    (fastps.LocalSGD(8, workers=WORKERS), 0.1 * WORKERS),
]
NAMES = ["Async()", "SSP(2)", "BSP()", "BSP(backup=1)", "LocalSGD(8)"]


@ray.remote(num_cpus=0)
class Trainer:
    def __init__(self, rank, data):
        self.rank, self.data = rank, data
        self.compute = 0.03 if rank == WORKERS - 1 else 0.003

    def join(self, ps):
        self.worker = ps.worker(self.rank)
        self.rng = np.random.default_rng(self.rank)

    def train(self, seconds):
        """The number of steps, and how many of their gradients came too late to count."""
        x, y, grads = self.data.train_x, self.data.train_y, named(np.zeros(SIZE, np.float32))
        steps = dropped = 0
        end = time.monotonic() + seconds
        with self.worker as w:
            while time.monotonic() < end:
                params = w.pull()  # waits for the others where the setting requires it
                batch = self.rng.integers(0, len(x), 32)
                loss_and_gradients(params, x[batch], y[batch], grads)
                time.sleep(self.compute)  # a larger model would still compute
                steps += 1
                dropped += not w.push(grads).counted
        return steps, dropped


def watch(ps, data):
    """The loss over time, computed by this process: it is not a worker, so no worker waits for it."""
    curve, begin = Curve(), time.monotonic()
    for look in range(LOOKS + 1):
        time.sleep(max(0.0, begin + look * SECONDS / LOOKS - time.monotonic()))
        curve.add(time.monotonic() - begin, loss(ps.pull(), data.train_x, data.train_y))
    return curve


ray.init()
data = digits(seed=1)
trainers = [Trainer.remote(rank, data) for rank in range(WORKERS)]
curves = {}
for name, (consistency, lr) in zip(NAMES, SETTINGS, strict=True):
    weights = named(initial(seed=1))
    with fastps.ParameterServer(weights, rule=fastps.SGD(lr), num_shards=2, consistency=consistency) as ps:
        ray.get([trainer.join.remote(ps) for trainer in trainers])
        runs = [trainer.train.remote(SECONDS) for trainer in trainers]
        curves[name] = watch(ps, data)
        (fast, _), *_, (slow, dropped) = ray.get(runs)
    losses = "  ".join(f"{t:g} s: {curves[name].at(t + 0.05):.3f}" for t in np.linspace(0.0, SECONDS, 4))
    print(f"{name:<13} loss after {losses}   steps: fast {fast}, slow {slow}, of which {dropped} dropped")

if importlib.util.find_spec("plotly"):
    from fastps.programs.demo.consistency.plot import write

    text = "Handwritten digits. The loss is over all training images, computed while the workers train."
    write(Path("consistency.html"), f"Training loss, {WORKERS} workers, one of them 10 times slower", text, curves)
    print("The loss over time is in consistency.html")
