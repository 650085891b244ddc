"""What the rules cost: a push of every rule beside the bytes that it must move, numpy in place, and torch's fused step.

    python bench/questions/rules.py [--elements 10000000] [--rules SGD,Adam] [--seconds 4]

One process, one shard, one thread, float32. A rule moves its parameter and slots in and out and its gradient in; it
is held against those bytes at the speed at which SGD moves its own in the same rounds. Answers are checked before times
are printed: some elements are computed again by `fastps.testing.naive`. The columns of torch need torch, and are left
out without it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_worker_niceness", "0")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import ray

import fastps
from bench.harness.bars import Report, check, json_file
from bench.harness.times import Times, human_time, interleaved
from fastps.testing.naive import Naive

try:
    import torch
except ImportError:
    torch = None

FLOAT = np.float32
CHECKED = 64  # elements that are computed again


@fastps.rule(slots={"m": 0.0, "v": 0.0})
def adam_as_users_write_it(p, g, m, v, *, step, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    return p - lr * (m / (1 - beta1**step)) / (sqrt(v / (1 - beta2**step)) + eps), m, v


RULES: dict[str, fastps.Rule] = {
    "Add": fastps.Add(),
    "SGD": fastps.SGD(0.01),
    "SGD, momentum": fastps.SGD(0.01, momentum=0.9),
    "Adagrad": fastps.Adagrad(0.01),
    "RMSprop": fastps.RMSprop(0.01),
    "Adadelta": fastps.Adadelta(),
    "Adam": fastps.Adam(1e-3),
    "a user's Adam": adam_as_users_write_it(),
    "AdamW": fastps.AdamW(1e-3),
    "AMSGrad": fastps.AMSGrad(1e-3),
    "NAdam": fastps.NAdam(),
    "Adamax": fastps.Adamax(),
    "Lion": fastps.Lion(1e-4),
    "FTRL": fastps.FTRL(0.1),
    "ProximalSGD": fastps.ProximalSGD(0.01),
}
TORCH: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda w: torch.optim.SGD([w], 0.01, fused=True),
    "SGD, momentum": lambda w: torch.optim.SGD([w], 0.01, momentum=0.9, fused=True),
    "Adagrad": lambda w: torch.optim.Adagrad([w], 0.01, fused=True),
    "RMSprop": lambda w: torch.optim.RMSprop([w], 0.01, foreach=False),
    "Adadelta": lambda w: torch.optim.Adadelta([w], foreach=False),
    "Adam": lambda w: torch.optim.Adam([w], 1e-3, fused=True),
    "a user's Adam": lambda w: torch.optim.Adam([w], 1e-3, fused=True),
    "AdamW": lambda w: torch.optim.AdamW([w], 1e-3, fused=True),
    "AMSGrad": lambda w: torch.optim.Adam([w], 1e-3, amsgrad=True, fused=True),
    "NAdam": lambda w: torch.optim.NAdam([w], foreach=False),
    "Adamax": lambda w: torch.optim.Adamax([w], foreach=False),
}
TORCH_BARS = {"Adam": 1.15, "AdamW": 1.15}
BYTES_BARS = {"Lion": 1.2, "Adagrad": 1.2, "RMSprop": 1.2}


def bytes_an_element(rule: fastps.Rule) -> int:
    return FLOAT().nbytes * (3 + 2 * len(rule.slots))


def measure(name: str, n: int, seconds: float) -> dict[str, Times]:
    """A push of the rule, of SGD and of the library's Adam, numpy in place and torch, by turns."""
    rng = np.random.default_rng(0)
    start, grad = rng.normal(size=n).astype(FLOAT), rng.normal(size=n).astype(FLOAT)
    rule, others = RULES[name], {"SGD": RULES["SGD"]}
    if name == "a user's Adam":
        others["Adam"] = RULES["Adam"]
    servers = {other: fastps.ParameterServer(start, rule=r) for other, r in {**others, name: rule}.items()}
    target = np.zeros(n, FLOAT)
    operations: dict[str, Callable[[], object]] = {
        f"push {other}": lambda ps=ps: ps.push(grad) for other, ps in servers.items()
    }
    operations["add"] = lambda: np.add(target, grad, out=target)
    if torch is not None and name in TORCH:
        torch.set_num_threads(1)
        weights = torch.from_numpy(start.copy()).requires_grad_()
        weights.grad = torch.from_numpy(grad)
        operations["torch"] = TORCH[name](weights).step
    times = interleaved(operations, seconds)
    found, pushes = servers[name].pull()[:CHECKED], servers[name].versions[0]
    naive = Naive(rule, start[:CHECKED])
    for _ in range(pushes):
        naive.push(grad[:CHECKED])
    scale = np.abs(naive.params).max()
    check(bool(np.abs(found - naive.params).max() <= 1e-4 * scale), f"{name} after {pushes} pushes")
    for ps in servers.values():
        ps.close()
    return times


def show(report: Report, name: str, n: int, times: dict[str, Times]) -> None:
    push, sgd, add = times[f"push {name}"], times["push SGD"], times["add"]
    moved = bytes_an_element(RULES[name])
    speed = f"{moved} B an element, {moved * n / push.median / 1e9:5.1f} GB/s, {human_time(push.median)}"
    limit = sgd.median * moved / bytes_an_element(RULES["SGD"])
    size = n * FLOAT().nbytes
    report.add("rules", size, f"{name} / its bytes", speed, push.median / limit, most=BYTES_BARS.get(name, 0))
    if name in ("Add", "SGD"):
        report.add(
            "rules", size, f"{name} / np.add in place", human_time(add.median), push.median / add.median, most=1.3
        )
    if "torch" in times:
        theirs = times["torch"]
        report.add(
            "rules", size, f"{name} / torch", human_time(theirs.median), push.median / theirs.median,
            most=TORCH_BARS.get(name, 0),
        )  # fmt: skip
    if "push Adam" in times and name != "Adam":
        ours = times["push Adam"]
        report.add(
            "rules", size, f"{name} / fastps.Adam", human_time(ours.median), push.median / ours.median, most=1.05
        )


ATTACH = """
import pickle, sys, time
import numpy, ray
ray.init(address=sys.argv[1], log_to_driver=False)
handle, grad = sys.stdin.buffer.read(), numpy.ones(250_000, numpy.float32)
start = time.perf_counter()
ps = pickle.loads(handle)
ps.push(grad)
end = time.perf_counter()
assert "numba" not in sys.modules
print(end - start)
"""


def attach(report: Report) -> None:
    """A process that has ray and numpy: from a handle's bytes to its first push with Adam."""
    import pickle

    with fastps.ParameterServer(np.zeros(250_000, FLOAT), rule=fastps.Adam(1e-3)) as ps:
        handle, taken = pickle.dumps(ps), []
        for _ in range(5):
            done = subprocess.run(
                [sys.executable, "-c", ATTACH, ray.get_runtime_context().gcs_address],
                input=handle, capture_output=True, check=True, timeout=120,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip
            taken.append(float(done.stdout.split()[-1]))
        check(ps.versions == (5,), "five processes that pushed once")
    report.add(
        "attach", 1_000_000, "attach to first Adam push, in ms", f"{len(handle)} bytes of handle",
        float(np.median(taken)) * 1e3, most=150,
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--elements", type=int, default=10_000_000, help="(default: %(default)s)")
    parser.add_argument("--rules", default=";".join(RULES), help="separated by ; (default: all)")
    parser.add_argument("--seconds", type=float, default=4.0, help="measuring time a rule (default: %(default)s)")
    parser.add_argument("--json", type=json_file, help="write the machine and the lines here as well")
    options = parser.parse_args()
    names = options.rules.split(";")
    if set(names) - set(RULES):
        parser.error(f"unknown {sorted(set(names) - set(RULES))}; rules are {list(RULES)}")
    report = Report()
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        report.head(f"{options.elements:,} float32, one thread: a push beside its bytes at SGD's speed, and torch")
        for name in names:
            show(report, name, options.elements, measure(name, options.elements, options.seconds))
        report.head("a fresh process: from a handle's bytes to the first push with Adam, imports included")
        attach(report)
    finally:
        ray.shutdown()
    return report.end(options.json)


if __name__ == "__main__":
    sys.exit(main())
