"""Servers whose handles a program has let go of, as a notebook does whose cell is run again."""

from __future__ import annotations

import gc
import warnings

import numpy as np
import pytest
import ray

import fastps
from tests.support import workers
from tests.support.processes import run

pytestmark = pytest.mark.usefixtures("ray_local")


def cell():
    ps = fastps.ParameterServer(np.zeros(1 << 18))
    return ray.get(workers.push_and_pull.remote(ps, np.ones(1 << 18)))[0][0]


def test_the_constructor_says_how_many_servers_live_that_were_let_go_of_and_how_to_close_them():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cell() == 1
    gc.collect()
    says = r"1 server without close\(\), .* 2 MiB .*`for ps in fastps.servers\(\): ps.close\(\)`"
    with pytest.warns(UserWarning, match=says) as caught:
        assert cell() == 1
    assert caught[0].filename == __file__
    gc.collect()
    assert len(fastps.servers()) == 2
    for ps in fastps.servers():
        ps.close()
    assert fastps.servers() == []
    with warnings.catch_warnings(), fastps.ParameterServer(3) as ps:
        warnings.simplefilter("error")
        assert fastps.servers() == [ps]


def test_a_handle_that_is_found_again_works_and_closes_the_server():
    fastps.ParameterServer(np.zeros(3), name="lost")
    gc.collect()
    (found,) = fastps.servers()
    assert fastps.servers() == [found]
    with found:
        found.push(np.ones(3))
        assert fastps.get("lost").pull().tolist() == [1] * 3
    with pytest.raises(fastps.ServerNotFoundError):
        fastps.get("lost")


def test_a_handle_that_has_travelled_works_after_the_owners_was_let_go_of():
    @ray.remote
    class Keeper:
        def keep(self, ps):
            self.ps = ps

        def use(self):
            return self.ps.push_pull(np.ones(3)).tolist()

    keeper = Keeper.remote()
    ray.get(keeper.keep.remote(fastps.ParameterServer(np.zeros(3))))
    gc.collect()
    assert ray.get(keeper.use.remote()) == [1] * 3
    ray.kill(keeper)
    for ps in fastps.servers():
        ps.close()


def test_a_forked_child_owns_nothing_of_its_parents(one_node):
    program = """
import os, sys, numpy as np, ray, fastps
ray.init(address=sys.argv[1], log_to_driver=False)
fastps.ParameterServer(np.zeros(3))
kept = fastps.ParameterServer(np.zeros(3))
pid = os.fork()
if pid == 0:
    kept.push(np.ones(3))
    kept.close()
    os._exit(len(fastps.servers()))
print(os.waitpid(pid, 0)[1], kept.pull().tolist(), len(fastps.servers()))
for ps in fastps.servers():
    ps.close()
"""
    assert run(program, one_node.address) == ["0 [1.0, 1.0, 1.0] 2"]
