"""Partial operations on arrays whose shards are on several nodes."""

from __future__ import annotations

import pytest

import fastps
from tests.system.test_parts_of_a_model import GIVEN, a_model, check, expected_of, grads_of, steps


@pytest.mark.parametrize("policy", [fastps.Async(), fastps.BSP()], ids=["Async", "BSP"])
def test_parts_across_nodes(cluster3, policy):
    model = a_model()
    with fastps.ParameterServer(model, rule=steps, num_shards=3, placement=cluster3.ids, consistency=policy) as ps:
        if isinstance(policy, fastps.BSP):
            with ps.worker() as w:
                for names in GIVEN:
                    w.push(grads_of(names, model), partial=True)
                check(w.pull(), expected_of(GIVEN))
                assert w.pull(names=["kept"])["kept"].tolist() == [0, 1, 2]
        else:
            for names in GIVEN:
                ps.push(grads_of(names, model), partial=True)
            check(ps.pull(), expected_of(GIVEN))
            check(ps.push_pull(grads_of("b", model), partial=True), {"b": expected_of([*GIVEN, "b"])["b"]})
            assert ps.pull(names=["kept", "c"])["kept"].tolist() == [0, 1, 2]
