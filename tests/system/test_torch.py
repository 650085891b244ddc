"""Models of torch that are trained on a server, beside the same ones trained by torch alone."""

from __future__ import annotations

import copy
import gc
import io
import threading

import numpy as np
import pytest

import fastps
from fastps import BSP, SSP, DtypeError, NamesError, OptionError, ShapeError

torch = pytest.importorskip("torch")

from fastps.torch import Optimizer, serve  # noqa: E402  it imports torch


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 3))


def batches(steps, seed=1, size=8):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 6, generator=generator), torch.randint(0, 3, (size,), generator=generator))
        for _ in range(steps)
    ]


def loss_of(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])


def train(model, optimizer, some, schedule=None):
    for batch in some:
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()


def check_same(one, other):
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6), name


RULES = {
    "sgd": (fastps.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (fastps.SGD(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "adam": (fastps.Adam(0.01), lambda p: torch.optim.Adam(p, 0.01)),
    "adamw": (fastps.AdamW(0.01, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)),
}


@pytest.mark.parametrize("overlap", [False, True], ids=["at_once", "overlap"])
@pytest.mark.parametrize("rule", RULES)
def test_one_worker_trains_as_torch_does(ray_local, rule, overlap):
    ours, theirs = RULES[rule]
    model, alone = network(), network()
    with serve(model, rule=ours, num_shards=2) as ps:
        train(model, Optimizer(model, ps, overlap=overlap), batches(200))
        train(alone, theirs(alone.parameters()), batches(200))
        check_same(model, alone)
        check_same(model, network_of(ps))


def network_of(ps):
    model = network(5)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in ps.pull().items()})
    return model


@pytest.mark.parametrize("rule", RULES)
def test_workers_in_rounds_train_as_torch_does_with_the_whole_batch(ray_local, rule):
    ours, theirs = RULES[rule]
    halves = [batches(200, seed) for seed in (1, 2)]
    alone, errors = network(), []
    policy = BSP(workers=2, deterministic=True)
    with serve(network(), rule=ours, consistency=policy) as ps:

        def work(rank):
            try:
                model = network()
                with ps.worker(rank) as worker:
                    train(model, Optimizer(model, ps, worker=worker), halves[rank])
            except BaseException as error:
                errors.append(error)
                raise

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        optimizer = theirs(alone.parameters())
        for both in zip(*halves, strict=True):
            optimizer.zero_grad()
            mean = policy.reduce == "mean"
            sum(loss_of(alone, half) for half in both).div(2 if mean else 1).backward()
            optimizer.step()
        check_same(network_of(ps), alone)


def test_stale_workers_train_too(ray_local):
    model = network()
    with serve(model, rule=fastps.SGD(0.1), consistency=SSP(staleness=2)) as ps, ps.worker() as worker:
        train(model, Optimizer(model, ps, worker=worker), batches(5))
        check_same(model, network_of(ps))


def test_the_readme_program(ray_local):
    model = network()
    with serve(model, rule=fastps.Adam(1e-2), num_shards=2) as ps:
        optimizer = Optimizer(model, ps)
        for batch in batches(1) * 100:
            loss_of(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        assert loss_of(model, batches(1)[0]) < loss_of(network(), batches(1)[0]) / 2


def test_what_is_frozen_tied_or_without_a_gradient_is_left_alone(ray_local):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.embed = torch.nn.Embedding(5, 4)
            self.norm = torch.nn.BatchNorm1d(4)
            self.head = torch.nn.Linear(4, 5, bias=False)
            self.head.weight = self.embed.weight
            self.unused = torch.nn.Linear(2, 2)
            self.frozen = torch.nn.Linear(4, 4).requires_grad_(False)

        def forward(self, x):
            return self.head(self.norm(self.frozen(self.embed(x))))

    model, alone = Model(), Model()
    keys = torch.tensor([0, 1, 2, 3])
    with serve(model, rule=fastps.SGD(0.001)) as ps:
        assert list(ps) == ["embed.weight", "norm.weight", "norm.bias", "unused.weight", "unused.bias"]
        optimizer, theirs = Optimizer(model, ps), torch.optim.SGD(alone.parameters(), 0.001)
        for _ in range(3):
            for one, trainer in ((model, optimizer), (alone, theirs)):
                trainer.zero_grad()
                one(keys).square().sum().backward()
                trainer.step()
        check_same(model, alone)
        assert ps.steps()["unused.weight"] == 0
        assert model.head.weight is model.embed.weight
        assert torch.equal(model.norm.running_mean, alone.norm.running_mean)


def test_schedules_closures_accumulation_and_clipping(ray_local):
    model, alone = network(), network()
    with serve(model, rule=fastps.SGD(0.1, momentum=0.9)) as ps:
        pairs = [(model, Optimizer(model, ps)), (alone, torch.optim.SGD(alone.parameters(), 0.1, momentum=0.9))]
        for one, optimizer in pairs:
            train(one, optimizer, batches(9), torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5))
        assert ps.hyper["lr"] == pytest.approx(0.1 * 0.5**2)
        for one, optimizer in pairs:
            optimizer.zero_grad()
            for batch in batches(3, 7):
                loss_of(one, batch).backward()
            torch.nn.utils.clip_grad_norm_(one.parameters(), 0.1)
            optimizer.step()

            def closure(one=one, optimizer=optimizer):
                optimizer.zero_grad()
                loss = loss_of(one, batches(1, 8)[0])
                loss.backward()
                return loss

            assert optimizer.step(closure).item() > 0
        check_same(model, alone)
        quiet = Optimizer(model, ps, schedules=False)
        quiet.param_groups[0]["lr"] = 7.0
        quiet.step()
        assert ps.hyper["lr"] < 0.1


def test_with_overlap_a_schedule_holds_for_the_gradients_of_the_next_step(ray_local):
    model, alone = network(), network()
    with serve(model, rule=fastps.SGD(0.1)) as ps:
        theirs = torch.optim.SGD(alone.parameters(), 0.1)
        for one, optimizer in ((model, Optimizer(model, ps, overlap=True)), (alone, theirs)):
            train(one, optimizer, batches(6), torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1))
        check_same(model, alone)


def test_a_scaler_and_several_rules(ray_local):
    model = network()
    rules = {"*bias": fastps.SGD(0.5), "*": fastps.Adam(0.01)}
    with serve(model, rule=rules) as ps:
        optimizer = Optimizer(model, ps)
        assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]
        assert {group["pattern"]: group["lr"] for group in optimizer.param_groups} == {"*bias": 0.5, "*": 0.01}
        optimizer.param_groups[0]["lr"] = 0.25
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        scaler.scale(loss_of(model, batches(1)[0])).backward()
        scaler.step(optimizer)
        scaler.update()
        assert ps.versions == (1,)
        assert ps.hyper["*bias"]["lr"] == 0.25
        optimizer.zero_grad()
        scaler.scale(loss_of(model, batches(1)[0]) * float("inf")).backward()
        scaler.step(optimizer)
        assert ps.versions == (1,)


def test_half_precision_and_steps_without_a_pull(ray_local):
    model = network().to(torch.bfloat16)
    some = [(x.to(torch.bfloat16), y) for x, y in batches(6)]
    with serve(model, rule=fastps.SGD(0.1)) as ps:
        assert ps["0.weight"].pull().dtype.name == "bfloat16"
        optimizer = Optimizer(model, ps, pull_every=3)
        before = copy.deepcopy(model)
        train(model, optimizer, some[:2])
        check_same(model, before)
        train(model, optimizer, some[2:3])
        assert ps.versions == (3,)
        assert torch.equal(
            model[0].weight.detach().view(torch.int16), torch.from_numpy(ps["0.weight"].pull().view(np.int16))
        )


def test_parameters_that_move_are_followed(ray_local):
    model = network()
    with serve(model, rule=fastps.SGD(0.1)) as ps:
        optimizer = Optimizer(model, ps)
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        train(model, optimizer, batches(1))
        check_same(model, network_of(ps))


def test_the_state_goes_through_a_file(ray_local):
    model = network()
    with serve(model, rule=fastps.Adam(0.01)) as ps, serve(network(4), rule=fastps.Adam(0.3), num_shards=3) as other:
        optimizer = Optimizer(model, ps)
        train(model, optimizer, batches(5))
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        second = network(9)
        restored = Optimizer(second, other)
        restored.load_state_dict(torch.load(file))
        check_same(second, model)
        train(model, optimizer, batches(5, 2))
        train(second, restored, batches(5, 2))
        check_same(second, model)
        assert other.hyper["lr"] == 0.01


def test_a_step_without_gradients_pulls_and_ends_the_step_of_a_worker(ray_local):
    model, other = network(), network()
    with serve(model, rule=fastps.SGD(0.1)) as ps:
        optimizer, second = Optimizer(model, ps), Optimizer(other, ps)
        train(model, optimizer, batches(1))
        second.step()
        check_same(model, other)
        assert ps.versions == (1,)
    with serve(model, consistency=BSP()) as ps, ps.worker(0) as worker:
        optimizer = Optimizer(model, ps, worker=worker)
        optimizer.zero_grad()
        clock = worker.clock
        optimizer.step()
        optimizer.step()
        assert worker.clock == clock + 2


def test_an_optimizer_that_is_dropped_pushes_no_more(ray_local):
    model = network()
    with serve(model, rule=fastps.SGD(0.1)) as ps:
        optimizer = Optimizer(model, ps, overlap=True)
        del optimizer
        gc.collect()
        loss_of(model, batches(1)[0]).backward()
        ps.flush()
        assert ps.versions == (0,)


def test_schedules_that_add_to_the_groups_go_through_a_state(ray_local):
    model = network()
    with serve(model, rule=fastps.SGD(0.1, momentum=0.9)) as ps:
        optimizer = Optimizer(model, ps)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=10)
        train(model, optimizer, batches(2), schedule)
        optimizer.load_state_dict(optimizer.state_dict())
        train(model, optimizer, batches(2), schedule)
        assert ps.hyper["lr"] > 0.02


def test_a_compiled_model_has_the_names_of_the_plain_one(ray_local):
    model = network()
    with serve(model) as ps:
        Optimizer(torch.compile(model), ps)
        assert next(iter(ps)) == "0.weight"


def test_what_does_not_fit_is_refused_and_nothing_is_changed(ray_local):
    model = network()
    with pytest.raises(NamesError, match="expected a torch"):
        serve(list(model.parameters()))
    with pytest.raises(NamesError, match="no parameter that requires grad"):
        serve(network().requires_grad_(False))
    with serve(model, rule=fastps.SGD(0.1)) as ps:
        other = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 4))
        with pytest.raises(ShapeError, match=r"`2.weight` of the model is \(4, 9\), that of the server \(3, 9\)"):
            Optimizer(other, ps)
        with pytest.raises(NamesError, match=r"lacks .*2.bias.* and has also .*weight"):
            Optimizer(torch.nn.Linear(6, 9), ps)
        for options in ({"pull_every": 0}, {"overlap": "yes"}, {"schedules": "no"}):
            with pytest.raises(OptionError, match="Optimizer"):
                Optimizer(model, ps, **options)
        with pytest.raises(OptionError, match="overlap"), ps.worker() as worker:
            Optimizer(model, ps, worker=worker, overlap=True)
        optimizer = Optimizer(model, ps)
        model[0].weight.grad = torch.ones(9, 6).to_sparse()
        with pytest.raises(DtypeError, match=r"gradient of `0.weight` is sparse"):
            optimizer.step()
        with pytest.raises(DtypeError, match=r"`0.weight` is on meta"):
            Optimizer(network().to("meta"), ps)
        assert ps.versions == (0,)
