"""Operations on parameters of thousands of arrays: what they cost grows with the arrays."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import fastps

pytestmark = pytest.mark.usefixtures("ray_local")


def calls_of(operation):
    """How many functions of Python and C it calls, which no other program on the machine can change."""
    count = 0

    def event(frame, kind, argument):
        nonlocal count
        count += kind in ("call", "c_call")

    sys.setprofile(event)
    try:
        operation()
    finally:
        sys.setprofile(None)
    return count


def many(n, nested):
    arrays = {f"{i:05}": np.ones(2) for i in range(n)}
    return {"layers": arrays} if nested else arrays


@pytest.mark.parametrize(("nested", "options"), [(True, {}), (False, {"clip_norm": 1.0}), (False, {})])
def test_push_pull_costs_about_what_a_push_and_a_pull_cost_and_grows_with_the_arrays(nested, options):
    counted = {}
    for n in (500, 2000):
        grads, out = many(n, nested), many(n, nested)
        with fastps.ParameterServer(many(n, nested), **options) as ps:
            ps.push_pull(grads)
            apart = calls_of(lambda ps=ps, grads=grads: ps.push(grads)) + calls_of(ps.pull)
            into = calls_of(lambda ps=ps, out=out: ps.pull(out=out))
            for what, operation in {
                "new": lambda ps=ps, grads=grads: ps.push_pull(grads),
                "out": lambda ps=ps, grads=grads, out=out: ps.push_pull(grads, out=out),
                "in place": lambda ps=ps, out=out: ps.push_pull(out, out=out),
            }.items():
                counted[n, what] = calls_of(operation)
            assert counted[n, "new"] <= 1.1 * apart
            if options or nested:  # else one call of C takes the arguments as they come
                assert counted[n, "out"] <= 3 * (apart + into)
    for what in ("new", "out", "in place"):
        assert counted[2000, what] < 6 * counted[500, what]
