"""What does an update rule cost: a push of every rule beside the bytes that it must move, and beside torch?

A rule reads and writes its parameter and slots and reads its gradient. It is held against those bytes at the speed at
which SGD moves its own in the same turns; against numpy in place; and against torch's fused step where torch is
installed. One process, one shard, one thread, float32.

What would change a decision: a rule of the library that takes more than 1.2 times its bytes' time is worth a loop of
its own; Adam above 1.15 of torch's fused step says the same of the compiler's options; a user's Adam above 1.05 of the
library's, that the way in which users write rules costs something.

Answers are checked before times are printed: some elements are computed again by `fastps.testing.naive`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import click
import numpy as np

import fastps
from bench.harness.attach import PROCESSES, attach
from bench.harness.bars import Report, check
from bench.harness.loop import interleaved
from bench.harness.question import SECONDS, Parsed, question
from bench.harness.raylets import local_ray
from bench.harness.sample import Times
from bench.harness.units import human_time
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
    push, sgd = times[f"push {name}"], times["push SGD"]
    moved = bytes_an_element(RULES[name])
    speed = f"{moved} B an element, {moved * n / push.median / 1e9:5.1f} GB/s, {human_time(push.median)}"
    limit = sgd.median * moved / bytes_an_element(RULES["SGD"])

    def beside(what: str, shown: str, seconds: float, bar: float) -> None:
        report.add("rules", n * FLOAT().nbytes, f"{name} / {what}", shown, push.median / seconds, most=bar)

    beside("its bytes", speed, limit, BYTES_BARS.get(name, 0))
    others = {"np.add in place": ("add", 1.3 if name in ("Add", "SGD") else None)}
    others |= {"torch": ("torch", TORCH_BARS.get(name, 0)), "fastps.Adam": ("push Adam", 1.05)}
    for what, (other, bar) in others.items():
        if other in times and other != f"push {name}" and bar is not None:
            beside(what, human_time(times[other].median), times[other].median, bar)


def attached(report: Report) -> None:
    report.head("a fresh process: from a handle's bytes to the first push with Adam, imports included")
    size = 1_000_000
    with fastps.ParameterServer(np.zeros(size // 4, FLOAT), rule=fastps.Adam(1e-3)) as ps:
        seconds, handle_bytes = attach(ps, "ps.push(grad)", size // 4)
        check(ps.versions == (PROCESSES,), f"{PROCESSES} processes that pushed once")
    shown = f"{handle_bytes} bytes of handle"
    report.add("attach", size, "attach to first Adam push, in ms", shown, seconds * 1e3, most=150)


def names_of(text: str) -> list[str]:
    """Of rules, whose names have commas. Raises ValueError."""
    names = text.split(";")
    if not set(names) <= set(RULES):
        raise ValueError(f"rules: expected some of {'; '.join(RULES)}, separated by semicolons, got {text!r}")
    return names


@question(elements=1_000_000, rules="SGD;Adam;a user's Adam", seconds=0.1)
@click.option("--elements", type=click.IntRange(min=CHECKED), default=10_000_000, show_default=True)
@click.option("--rules", type=Parsed(names_of), default=";".join(RULES), help="separated by ; (all)")
@click.option("--seconds", type=SECONDS, default=4.0, show_default=True, help="measuring time a rule")
def command(report: Report, elements: int, rules: list[str], seconds: float) -> None:
    with local_ray():
        report.head(f"{elements:,} float32, one thread: a push beside its bytes at SGD's speed, and torch")
        for name in rules:
            show(report, name, elements, measure(name, elements, seconds))
        attached(report)
