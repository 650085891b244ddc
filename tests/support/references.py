"""Every rule of the library with somebody else's word on what it computes: torch's, or the paper's formula in numpy.

`CASES` is the one table. A case's `final` goes from parameters and gradients to the parameters after the last push;
what a test does in between, on one shard or seven, with push or push_pull, is its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fastps.rules import (
    DCASGD,
    FTRL,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Add,
    AMSGrad,
    Lion,
    NAdam,
    ProximalSGD,
    RMSprop,
    Rule,
)

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


@dataclass(frozen=True)
class Case:
    """A rule and its reference.

    Attributes
    ----------
    id : names it in a test
    rule : with its hyper-parameters
    final : (params, list of gradients, dtype, pulled) to the parameters after all steps, in that dtype; `pulled` is a
        list of what the worker had at each step, for rules that ask for it
    """

    id: str
    rule: Rule
    final: Callable[..., Any]


def problem(n: int, steps: int, dtype: str, seed: int = 0):
    """Parameters, gradients and pulled parameters: of many magnitudes, one gradient in ten zero, and some at first.

    The same in every run, and no gradient that stays zero: then two correct implementations differ by more than
    rounding. `Lion` goes the other way once a momentum is as close to 0 as rounding goes; and weight decay alone, in
    the rules that divide by the size of what they see, turns around at 0 for ever.
    """
    rng = np.random.default_rng(seed)
    params = rng.normal(size=n)
    magnitude = 10.0 ** rng.uniform(-3, 0, size=n)
    grads = [(rng.normal(size=n) * magnitude * (rng.uniform(size=n) > 0.1)).astype(dtype) for _ in range(steps)]
    for grad in grads[:3]:
        grad[::17] = 0
    pulled = [(params + 0.1 * rng.normal(size=n)).astype(dtype) for _ in range(steps)]
    return params.astype(dtype), grads, pulled


def difference(a, b, start) -> float:
    """The largest of |a - b| / (|b| + s), with s the mean magnitude of parameters at the start.

    Relative to a parameter, and to s for those that ended close to 0: the rounding errors of 200 steps are as large as
    the parameter was on its way.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.max(np.abs(a - b) / (np.abs(b) + np.mean(np.abs(start))), initial=0))


def by_torch(optimizer: str, **options: Any) -> Callable[..., Any]:
    def final(params, grads, dtype, pulled=None):
        torch = pytest.importorskip("torch")
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)  # in which NAdam keeps its product of momenta
        try:
            tensor = torch.tensor(np.asarray(params, dtype), requires_grad=True)
            optimize = getattr(torch.optim, optimizer)([tensor], foreach=False, **options)
            for grad in grads:
                tensor.grad = torch.tensor(np.asarray(grad, dtype))
                optimize.step()
            return tensor.detach().numpy()
        finally:
            torch.set_default_dtype(default)

    return final


def by_formula(step: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`step(p, g, state, pulled, **options)` returns the new parameters; `state` is a dict that it may fill."""

    def final(params, grads, dtype, pulled=None):
        p, state = np.asarray(params, np.float64), {}
        for i, grad in enumerate(grads):
            seen = None if pulled is None else np.asarray(pulled[i], np.float64)
            p = step(p, np.asarray(grad, np.float64), state, seen, **options)
        return p.astype(dtype)

    return final


def add(p, g, state, pulled):
    return p + g


def lion(p, g, state, pulled, lr=1e-4, beta1=0.9, beta2=0.99, weight_decay=0.0):
    """As the authors' program: the decay first."""
    m = state.get("m", np.zeros_like(p))
    state["m"] = beta2 * m + (1 - beta2) * g
    return p * (1 - lr * weight_decay) - lr * np.sign(beta1 * m + (1 - beta1) * g)


def ftrl(p, g, state, pulled, alpha, beta=1.0, l1=0.0, l2=0.0):
    """McMahan et al. 2013, algorithm 1. A parameter whose first gradient comes is taken for the formula's value at some
    z, which is solved for: for l1 = 0, it is -w * (beta / alpha + l2)."""
    n = state.get("n", np.zeros_like(p))
    z = state.get("z", np.where(p == 0, 0, -p * (beta / alpha + l2) - l1 * np.where(p > 0, 1, -1)))
    sigma = (np.sqrt(n + g**2) - np.sqrt(n)) / alpha
    z = z + g - sigma * p
    n = n + g**2
    state["n"], state["z"] = n, z
    with np.errstate(invalid="ignore"):
        w = np.where(np.abs(z) <= l1, 0, -(z - np.sign(z) * l1) / ((beta + np.sqrt(n)) / alpha + l2))
    return np.where(n == 0, p, w)


def proximal_sgd(p, g, state, pulled, lr, l1=0.0, l2=0.0):
    """Duchi and Singer 2009, sections 5.1 and 5.2, one after the other."""
    half = p - lr * g
    return np.sign(half) * np.maximum(np.abs(half) - lr * l1, 0) / (1 + lr * l2)


def dcasgd(p, g, state, pulled, lr, lam=0.04):
    return p - lr * (g + lam * g * g * (p - pulled))


CASES = [
    Case("Add", Add(), by_formula(add)),
    Case("SGD", SGD(0.1), by_torch("SGD", lr=0.1)),
    Case("SGD-decay", SGD(0.01, weight_decay=0.1), by_torch("SGD", lr=0.01, weight_decay=0.1)),
    Case("SGD-momentum", SGD(0.1, 0.9), by_torch("SGD", lr=0.1, momentum=0.9)),
    Case(
        "SGD-dampening",
        SGD(0.05, 0.8, 0.3, 0.01),
        by_torch("SGD", lr=0.05, momentum=0.8, dampening=0.3, weight_decay=0.01),
    ),
    Case(
        "SGD-nesterov",
        SGD(0.05, 0.9, weight_decay=0.01, nesterov=True),
        by_torch("SGD", lr=0.05, momentum=0.9, weight_decay=0.01, nesterov=True),
    ),
    Case("Adagrad", Adagrad(), by_torch("Adagrad")),
    Case(
        "Adagrad-all",
        Adagrad(0.1, 0.01, 0.02, 0.5, 1e-6),
        by_torch("Adagrad", lr=0.1, lr_decay=0.01, weight_decay=0.02, initial_accumulator_value=0.5, eps=1e-6),
    ),
    Case("RMSprop", RMSprop(), by_torch("RMSprop")),
    Case(
        "RMSprop-decay",
        RMSprop(1e-3, 0.9, 1e-6, 0.1),
        by_torch("RMSprop", lr=1e-3, alpha=0.9, eps=1e-6, weight_decay=0.1),
    ),
    Case(
        "RMSprop-momentum",
        RMSprop(1e-3, weight_decay=0.01, momentum=0.9),
        by_torch("RMSprop", lr=1e-3, weight_decay=0.01, momentum=0.9),
    ),
    Case("RMSprop-centered", RMSprop(centered=True, eps=1e-5), by_torch("RMSprop", centered=True, eps=1e-5)),
    Case(
        "RMSprop-centered-momentum",
        RMSprop(1e-3, weight_decay=0.01, momentum=0.8, centered=True),
        by_torch("RMSprop", lr=1e-3, weight_decay=0.01, momentum=0.8, centered=True),
    ),
    Case("Adadelta", Adadelta(), by_torch("Adadelta")),
    Case(
        "Adadelta-decay",
        Adadelta(0.5, 0.95, 1e-4, 0.01),
        by_torch("Adadelta", lr=0.5, rho=0.95, eps=1e-4, weight_decay=0.01),
    ),
    Case("Adam", Adam(), by_torch("Adam")),
    Case(
        "Adam-decay",
        Adam(0.01, 0.8, 0.99, 1e-6, 0.1),
        by_torch("Adam", lr=0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1),
    ),
    Case("Adam-no-momentum", Adam(beta1=0.0, beta2=0.9), by_torch("Adam", betas=(0.0, 0.9))),
    Case("AdamW", AdamW(), by_torch("AdamW")),
    Case(
        "AdamW-decay",
        AdamW(0.01, 0.8, 0.99, 1e-6, 0.5),
        by_torch("AdamW", lr=0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.5),
    ),
    Case("AMSGrad", AMSGrad(), by_torch("Adam", amsgrad=True)),
    Case(
        "AMSGrad-decay",
        AMSGrad(0.01, 0.8, 0.9, 1e-6, 0.1),
        by_torch("Adam", lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1, amsgrad=True),
    ),
    Case("NAdam", NAdam(), by_torch("NAdam")),
    Case(
        "NAdam-decay",
        NAdam(0.01, 0.95, 0.99, 1e-6, 0.1, 0.05),
        by_torch("NAdam", lr=0.01, betas=(0.95, 0.99), eps=1e-6, weight_decay=0.1, momentum_decay=0.05),
    ),
    Case(
        "NAdam-decoupled",
        NAdam(weight_decay=0.1, decoupled_weight_decay=True),
        by_torch("NAdam", weight_decay=0.1, decoupled_weight_decay=True),
    ),
    Case("NAdam-even", NAdam(momentum_decay=0.0), by_torch("NAdam", momentum_decay=0.0)),
    Case("Adamax", Adamax(), by_torch("Adamax")),
    Case(
        "Adamax-decay",
        Adamax(0.01, 0.8, 0.9, 1e-6, 0.1),
        by_torch("Adamax", lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1),
    ),
    Case("Lion", Lion(), by_formula(lion)),
    Case(
        "Lion-decay",
        Lion(1e-3, 0.95, 0.98, 0.1),
        by_formula(lion, lr=1e-3, beta1=0.95, beta2=0.98, weight_decay=0.1),
    ),
    Case("FTRL", FTRL(0.1), by_formula(ftrl, alpha=0.1)),
    Case("FTRL-penalties", FTRL(0.5, 0.5, 1.0, 0.1), by_formula(ftrl, alpha=0.5, beta=0.5, l1=1.0, l2=0.1)),
    Case("FTRL-undamped", FTRL(0.1, 0.0), by_formula(ftrl, alpha=0.1, beta=0.0)),
    Case("ProximalSGD", ProximalSGD(0.1), by_formula(proximal_sgd, lr=0.1)),
    Case("ProximalSGD-penalties", ProximalSGD(0.01, 0.5, 0.1), by_formula(proximal_sgd, lr=0.01, l1=0.5, l2=0.1)),
    Case("DCASGD", DCASGD(1e-3), by_formula(dcasgd, lr=1e-3)),
    Case("DCASGD-strong", DCASGD(1e-4, 1.0), by_formula(dcasgd, lr=1e-4, lam=1.0)),
]
