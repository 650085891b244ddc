"""Models as users have them: of torch and of JAX, in lists, tied, with what no rule can train, in half precision."""

from __future__ import annotations

import importlib
import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import ray

import fastps


class Layer(NamedTuple):
    weight: Any
    bias: Any


@dataclass
class Model:
    layers: list[Layer]
    scale: Any
    name: str = "mine"


def test_a_model_comes_out_in_the_containers_that_it_came_in(ray_local):
    layers = [Layer(np.ones((2, 3), np.float32), np.zeros(2, np.float32)), Layer(np.ones((1, 2)), np.zeros(1))]
    model = Model(layers, np.array(2.0))
    with fastps.ParameterServer(model, num_shards=2) as ps:
        ps.push(model)
        found = ps.pull()
        assert type(found) is Model
        assert [type(layer) for layer in found.layers] == [Layer, Layer]
        assert (found.layers[1].weight == 2).all()
        assert (found.scale, found.name) == (4, "mine")
        assert list(ps) == ["layers/0/weight", "layers/0/bias", "layers/1/weight", "layers/1/bias", "scale"]
        out = Model([Layer(np.empty((2, 3), np.float32), np.empty(2, np.float32)), found.layers[1]], found.scale)
        assert ps.pull(out=out) is out
        assert (out.layers[0].weight == 2).all()
        assert ps["layers/1/weight"].pull().tolist() == [[2, 2]]
        with ps.view() as view:
            assert view["scale"] == 4


def test_empty_containers_and_constants_come_out(ray_local):
    with fastps.ParameterServer({"w": np.zeros(3), "empty": ((), {}, [[]]), "none": None, "name": "mine"}) as ps:
        ps.push({"w": np.ones(3)})
        found = ps.pull()
        assert found["w"].tolist() == [1, 1, 1]
        del found["w"]
        assert found == {"empty": ((), {}, [[]]), "none": None, "name": "mine"}
        assert ps.push_pull([np.ones(3)])["empty"] == ((), {}, [[]])
        assert ps.pull(out=ps.pull())["empty"] == ((), {}, [[]])


def test_a_list_of_arrays_in_one_line(ray_local):
    with fastps.ParameterServer([np.zeros(3), (np.zeros(2), np.zeros(()))]) as ps:
        ps.push([np.ones(3), (np.ones(2), 1.0)])
        one, (two, three) = ps.push_pull([np.ones(3), [np.ones(2), np.ones(())]])
        assert (one.tolist(), two.tolist(), three.item()) == ([2, 2, 2], [2, 2], 2)


def torch_model(torch):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(5, 4)
            self.norm = torch.nn.BatchNorm1d(4)
            self.head = torch.nn.Linear(4, 5)
            self.head.weight = self.embed.weight

        def forward(self, tokens):
            return self.head(self.norm(self.embed(tokens)))

    return Tied()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_state_dict_of_torch_in_one_line(ray_local, dtype):
    torch = pytest.importorskip("torch")
    model = torch_model(torch).to(getattr(torch, dtype))
    model.norm.num_batches_tracked += 7
    with fastps.ParameterServer(model.state_dict()) as ps:
        state = ps.pull()
        assert type(state) is OrderedDict
        assert list(state) == list(model.state_dict())
        assert state["norm.num_batches_tracked"].item() == 7
        assert state["embed.weight"] is state["head.weight"]
        assert state["embed.weight"].dtype.name == dtype
        ps.pull(out=model.state_dict())  # into the model itself
        grads = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
        ps.push(grads)
        before = model.embed.weight.detach().clone()
        ps.pull(out=model.state_dict())
        assert torch.equal(model.embed.weight, (before.float() + 2).to(before.dtype))  # both places pushed
        assert model.norm.num_batches_tracked.item() == 7


def test_named_parameters_of_torch_and_a_list_of_their_gradients(ray_local):
    torch = pytest.importorskip("torch")
    model = torch_model(torch)
    with fastps.ParameterServer(dict(model.named_parameters()), rule=fastps.SGD(0.5)) as ps:
        model(torch.tensor([0, 1, 2, 3])).square().sum().backward()
        expected = {name: (p - 0.5 * p.grad).detach().clone() for name, p in model.named_parameters()}
        ps.push([p.grad for p in model.parameters()])
        ps.pull(out=dict(model.named_parameters()))
        for name, p in model.named_parameters():
            assert torch.allclose(p.detach(), expected[name]), name
            assert p.requires_grad
        wrong = [p.grad for p in model.parameters()][::-1]
        with pytest.raises(
            fastps.ShapeError, match=r"push `embed\.weight`: expected float32\[5, 4\], got float32\[5\]"
        ):
            ps.push(wrong)


def test_a_model_of_jax_in_one_line(ray_local):
    jax = pytest.importorskip("jax")
    params = {"dense": [jax.numpy.ones((2, 3)), jax.numpy.zeros(3, jax.numpy.bfloat16)], "steps": jax.numpy.array(3)}
    with fastps.ParameterServer(params, num_shards=2) as ps:
        grads = jax.grad(lambda p: (p["dense"][0].sum() * 2 + p["dense"][1].sum()).astype(float), allow_int=True)
        found = grads(params)
        ps.push({"dense": found["dense"]})
        pulled = ps.pull()
        assert (pulled["dense"][0] == 3).all()
        assert pulled["dense"][1].dtype.name == "bfloat16"
        assert (pulled["dense"][1] == 1).all()
        assert pulled["steps"] == 3
        assert jax.tree.structure(pulled) == jax.tree.structure(params)


def test_an_array_of_jax_that_is_a_copy_stays_when_the_memory_changes(ray_local):
    """JAX relies on arrays that never change, and device_put may use the memory that it is given."""
    jax = pytest.importorskip("jax")
    n = 300_000
    with fastps.ParameterServer(np.zeros(n, np.float32)) as ps, ps.view() as view:
        out = np.empty(n + 16, np.float32)
        out = out[-out.ctypes.data % 64 // 4 :][:n]  # the alignment that JAX needs to use memory as it is
        copies = [jax.numpy.array(ps.pull(out=out)), jax.numpy.array(view[...])]
        ps.push(np.ones(n, np.float32))
        assert ps.pull(out=out)[0] == view[0] == 1
        assert [float(abs(copy).max()) for copy in copies] == [0, 0]


@pytest.mark.parametrize("policy", [fastps.Async(), fastps.BSP(workers=1), fastps.LocalSGD(1, workers=1)], ids=str)
def test_what_is_carried_is_untouched_by_pushes_of_workers(ray_local, policy):
    params = {"a": np.zeros(5000, np.float32), "n": np.arange(7, dtype=np.int16), "b": [np.zeros(3), np.zeros((0, 2))]}
    with fastps.ParameterServer(params, num_shards=3, consistency=policy, rule=fastps.Adam(0.1)) as ps:
        with ps.worker() as w:
            for _ in range(3):
                w.push({"a": np.ones(5000, np.float32), "b": [np.ones(3), None]})
                found = w.pull()
                assert found["n"].tolist() == list(range(7))
        found = ps.pull()
        assert found["n"].dtype == np.int16
        assert found["n"].tolist() == list(range(7))
        assert found["b"][1].shape == (0, 2)
        assert (found["a"] < -0.1).all()
        if not isinstance(policy, fastps.LocalSGD):
            slot = ps.slots("v")
            assert (slot["a"] > 0).all()
            assert slot["b"][1] is None
            assert "n" not in slot


def test_shards_need_not_know_the_classes_of_containers(ray_local, tmp_path, monkeypatch):
    (tmp_path / "only_the_driver.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Model:\n    weight: object\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    only_the_driver = importlib.import_module("only_the_driver")
    with fastps.ParameterServer(only_the_driver.Model(np.zeros(3)), name="only the driver knows") as ps:
        assert type(ps.pull()) is only_the_driver.Model
        assert type(fastps.get("only the driver knows").pull()) is only_the_driver.Model
        monkeypatch.setitem(sys.modules, "only_the_driver", None)
        with pytest.raises(fastps.ParameterError, match="the module 'only_the_driver', which this process cannot"):
            fastps.get("only the driver knows")


def test_a_model_is_executed_on_by_remote(ray_local):
    with fastps.ParameterServer.remote([np.zeros(3), np.zeros(())]) as ps:
        ray.get(ps.push.remote([np.ones(3), np.zeros(())]))
        one, two = ray.get(ps.get_params.remote())
        assert (one.tolist(), two.item()) == ([1, 1, 1], 0)
