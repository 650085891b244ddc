"""What one worker of rounds is promised, and processes that are none: several workers' sessions in one thread."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import os

import numpy as np
import pytest
import ray

import fastps
from tests.conformance.test_rounds import uniform
from tests.support import workers
from tests.support.extent import samples
from tests.support.local_server import LocalServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("ray_local")

N = 1001
ONES = np.ones(N, np.float32)


@contextlib.contextmanager
def server(
    count,
    params=None,
    *,
    rule=None,
    num_shards=2,
    reduce="sum",
    backup=0,
    quorum=None,
    straggler_timeout=None,
    **options,
):
    """A server in rounds, and `count` workers in this thread."""
    policy = fastps.BSP(
        reduce=reduce, backup=backup, workers=quorum or max(1, count), straggler_timeout=straggler_timeout
    )
    start = np.zeros(N, np.float32) if params is None else params
    with contextlib.ExitStack() as stack:
        ps = stack.enter_context(
            fastps.ParameterServer(start, rule=rule, num_shards=num_shards, consistency=policy, **options)
        )
        yield ps, *[stack.enter_context(ps.worker()) for _ in range(count)]


@pytest.fixture(scope="module")
def shared_servers(ray_local):
    """Servers that tests share, by how they reduce, each started when the first test asks for it."""
    with contextlib.ExitStack() as stack:
        started = {}

        def server_that(reduce):
            if reduce not in started:
                started[reduce] = stack.enter_context(server(0, reduce=reduce, nonfinite="skip"))[0]
            return started[reduce]

        yield server_that


@pytest.fixture
def shared(shared_servers):
    """`shared(count)` is what `server(count)` is, of a server that many tests use: its parameters are zeros, and its
    rounds go on from `ps.versions`."""

    @contextlib.contextmanager
    def entered(count, reduce="sum"):
        ps = shared_servers(reduce)
        with ps.worker() as w:
            w.end_step()  # with what those that have left gave to the open round
            w.push(-w.pull())
            assert not w.pull().any()
        with contextlib.ExitStack() as stack:
            yield ps, *[stack.enter_context(ps.worker()) for _ in range(count)]

    return entered


def numbers(array):
    """Distinct gradients of the parameters' shape, without rounding in sums of a few."""
    return [(np.arange(N) % 17 + k).astype(array.dtype) for k in range(8)]


# Views


def blocks(ps):
    return [os.fstat(ps.attachment.session.shm.arenas[i].fd).st_blocks for i in range(ps.num_shards)]


def test_a_view_never_changes_while_it_or_an_array_of_it_is_held(shared):
    with shared(2) as (ps, a, b):
        kept, (first, _) = [], ps.versions
        for number in range(200):
            with a.view() as view:
                pieces = [piece.array for piece in view.pieces]
                assert a.reply.versions == (first + number,) * 2
                if number % 3 == 0:
                    kept.append((2 * number, pieces))
                a.push(ONES)
                b.push(ONES)
                b.pull()
                assert all((piece == 2 * number).all() for piece in pieces)
            for of, arrays in kept:  # their views were left
                assert all((array == of).all() for array in arrays)
            kept = kept[-4:]
        assert (ps.pull() == 400).all()
        del pieces, kept, arrays


def test_memory_of_views_is_used_again():
    with server(1, np.zeros(300_000, np.float32)) as (ps, a):
        grads = np.ones(300_000, np.float32)

        def rounds(count, held):
            kept = []
            for _ in range(count):
                kept = [*kept[-held + 1 :], a.view().pieces] if held else []
                a.push(grads)
            a.pull()

        rounds(20, held=0)
        few = blocks(ps)
        rounds(30, held=5)
        gc.collect()
        more = blocks(ps)
        assert all(b > a for a, b in zip(few, more, strict=True))
        rounds(100, held=5)
        gc.collect()
        rounds(100, held=0)
        assert blocks(ps) == more


def test_views_that_a_fork_inherits_stay_those_of_its_parent(shared):
    with shared(1) as (_, a):
        held = [piece.array for piece in a.view().pieces]
        pid = os.fork()
        if pid == 0:
            del held
            gc.collect()
            os._exit(0)
        os.waitpid(pid, 0)
        for _ in range(40):
            a.push(ONES)
        assert (a.pull() == 40).all()
        assert all((array == 0).all() for array in held)
        del held


def test_when_every_version_is_held_an_operation_says_so_and_goes_on_when_some_are_dropped():
    with server(1) as (ps, a):
        held = []
        for number in range(16):
            held.append(a.view().pieces)
            a.push(ONES)
            assert all((p.array == number).all() for p in held[-1])
        for operation in (a.pull, a.view, lambda timeout: a.push(ONES, timeout=timeout), ps.pull):
            with pytest.raises(fastps.WaitTimeoutError, match=f"that is not pinned.*process {os.getpid()} "):
                operation(timeout=0.05)
        assert all((p.array == number).all() for number, pieces in enumerate(held) for p in pieces)
        del held[3:5]
        gc.collect()
        assert (a.pull() == 16).all()
        a.push(ONES)
        assert (ps.pull() == 17).all()
        assert all((p.array == 0).all() for p in held[0])
        del held


def test_a_fork_lets_go_of_nothing_that_its_parent_holds(shared):
    with shared(1) as (_, a):
        view = a.view()
        pieces = [piece.array for piece in view.pieces]
        child = os.fork()
        if child == 0:
            view = pieces = None  # its copies of them
            os._exit(0)
        assert os.waitpid(child, 0) == (child, 0)
        for number in range(1, 41):
            a.push(ONES)
            assert (a.pull() == number).all()
        assert all((piece == 0).all() for piece in pieces)
        del view, pieces


# Accumulation


def test_gradients_that_are_kept_are_one_round_with_their_sum(shared):
    with shared(2) as (ps, a, b):
        parts, (first, _) = numbers(ONES), ps.versions
        for number in range(10):
            for k, grads in enumerate(parts[:5]):
                a.push(grads, step=False)
                assert a.clock == first + number
                if k == 2:
                    assert (a.pull() == ps.pull()).all(), "what is kept counts for nothing yet"
            a.push(parts[5])
            b.push(parts[6])
            expected = (number + 1) * (sum(parts[:6]) + parts[6])
            assert (a.pull() == expected).all()
            assert a.reply.versions == (first + number + 1,) * 2


def test_a_mean_is_over_gradients_and_not_over_workers(shared):
    with shared(3, reduce="mean") as (_, a, b, c):
        parts = numbers(ONES)
        for grads in parts[:3]:
            a.push(grads, step=False)
        a.end_step()
        b.push(parts[3])
        c.end_step()
        expected = (parts[0] + parts[1] + parts[2] + parts[3]) / np.float32(4)
        assert a.pull().tobytes() == expected.tobytes()


def test_what_a_worker_kept_goes_with_it(shared):
    with shared(2) as (ps, a, b):
        b.push(7 * ONES, step=False)
        b.push(7 * ONES, step=False)
        b.close()
        a.push(ONES)
        assert (a.pull() == 1).all()
        with ps.worker(1) as again:  # in the round in which its predecessor kept something
            again.push(8 * ONES, step=False)
            again.close()
        with ps.worker(1) as again:
            again.push(2 * ONES, step=False)
            again.push(2 * ONES)
            a.push(ONES)
            assert (again.pull() == 6).all()
            assert again.rank == 1


def test_gradients_that_were_kept_for_a_round_that_has_closed_are_lost():
    with server(2, backup=1) as (ps, a, b):
        b.push(7 * ONES, step=False)
        a.push(ONES)
        assert not b.push(7 * ONES).counted
        assert b.reply.versions == ()
        b.push(7 * ONES, step=False)
        a.push(ONES)
        assert (b.pull() == 2).all()
        assert b.push(2 * ONES).counted
        assert (a.pull() == 4).all()
        assert ps.stats().shards[0].dropped == 1


# Who takes part


def test_a_worker_alone_steps_as_it_likes(shared):
    with shared(1) as (ps, a):
        first = a.clock
        for number in range(5):
            assert (a.push_pull(ONES) == number + 1).all()
        assert (a.clock, a.reply.clock, a.reply.staleness, a.reply.counted) == (first + 5, first + 4, 0, True)
        assert ps.versions == (first + 5,) * 2


def test_a_worker_that_joins_in_the_middle_is_waited_for_from_the_open_round_on(shared):
    with shared(1) as (ps, a):
        first = a.clock
        for _ in range(3):
            a.push(ONES)
        with ps.worker() as b:
            assert (b.rank, b.clock) == (1, first + 3)
            a.push(ONES)
            with pytest.raises(fastps.WaitTimeoutError, match="the worker of rank 1"):
                a.pull(timeout=0.05)
            assert (b.pull() == 3).all()
            b.push(10 * ONES)
            assert (a.pull() == 14).all()
            assert (b.pull() == 14).all()


@pytest.mark.parametrize("gives", [False, True])
def test_a_worker_that_leaves_in_the_middle_is_not_waited_for(shared, gives):
    with shared(2) as (_, a, b):
        a.push(ONES)
        if gives:
            b.push(10 * ONES)
        b.close()
        assert (a.pull() == (11 if gives else 1)).all()
        a.push(ONES)
        assert (a.pull() == (12 if gives else 2)).all()


def test_a_rank_is_taken_again_and_gives_no_second_time_to_a_round(shared):
    with shared(2) as (ps, a, b):
        first = b.clock
        b.push(10 * ONES)
        b.close()
        with pytest.raises(fastps.RankError, match="rank 0 is taken"):
            ps.worker(0)
        with ps.worker(1) as c:
            assert c.clock == first + 1  # its rank has given to the round before
            with pytest.raises(fastps.WaitTimeoutError):
                c.push(100 * ONES, timeout=0.05)
            a.push(ONES)
            assert (c.pull() == 11).all()
            c.push(100 * ONES)
            a.push(ONES)
            assert (a.pull() == 112).all()


def test_a_gradient_of_a_worker_that_was_expelled_meanwhile_counts_nowhere():
    """It is of parameters that the others have left behind: whoever comes back with it is late."""
    with server(2, straggler_timeout=1.0) as (_, a, b):
        assert (b.pull() == 0).all()
        for number in range(3):
            a.push(ONES)
            assert (a.pull() == number + 1).all()
        reply = b.push(100 * ONES)
        assert (b.returns, b.clock) == (1, 3)
        assert (reply.counted, reply.versions) == (False, ())
        a.push(ONES)
        b.push(10 * ONES)
        assert (a.pull() == 14).all()


def test_an_empty_round_changes_nothing_but_its_number():
    rules = {"momentum": fastps.SGD(0.1, momentum=0.9), "adam": fastps.Adam(0.1)}
    alone = {name: LocalServer.create(0 * ONES, rule=rule) for name, rule in rules.items()}
    ones, expected = dict.fromkeys(rules, ONES), {name: np.zeros_like(ONES) for name in rules}
    with server(2, expected, rule=rules) as (ps, a, b):
        for number in range(20):
            if number % 3 == 1:
                for w in (a, b):
                    w.end_step()
            else:
                a.push(ones)
                b.end_step()
                for name in rules:
                    alone[name].push_from(ONES)
                    alone[name].pull_into(expected[name])
            found = a.pull()
            assert all(found[name].tobytes() == expected[name].tobytes() for name in rules)
            assert a.reply.versions == (number + 1,) * 2
            assert ps.versions == (number + 1,) * 2


def test_nobody_goes_on_before_as_many_workers_as_asked_for_have_come():
    with server(1, quorum=2) as (ps, a):
        a.push(ONES)
        with pytest.raises(fastps.WaitTimeoutError, match="2 workers to join"):
            a.pull(timeout=0.05)
        assert (ps.pull() == 0).all()
        with ps.worker() as b:
            b.push(ONES)
            assert (a.pull() == 2).all()


# Processes that are no workers


@fastps.rule(slots={"twice": 0.0})
def two_streams(p, g, twice, *, lr=1.0):
    return p + lr * g, twice + 2 * g


def work(ps, rank, count):
    with ps.worker(rank) as w:
        while w.clock < count:
            w.pull()
            w.push(ONES)
        return w.clock


def look_on(ps, count):
    """Everything that a process can do that is no worker, while rounds go on; what it has pulled."""
    session, seen = ps.attachment.session, []
    views = session.shm is not None and len(session.shm.shards) == ps.num_shards
    for number in range(count):
        params = ps.pull()
        assert (params == params[0]).all(), "a pull is of one round"
        seen.append(float(params[0]))
        slots = ps.slots("twice")
        assert slots.min() >= 2 * seen[-1]
        if views:
            with ps.view() as view:
                pieces = [piece.array for piece in view.pieces]
                first = pieces[0][0]
                assert first >= seen[-1]
                ps.pull()
                assert all((piece == first).all() for piece in pieces)
        ps.configure(lr=1.0)
        if number % 5 == 0:
            ps.set(slots={"twice": np.full(N, 1e6 * (1 + number), np.float32)})
    assert seen == sorted(seen)
    return seen


def check_what_others_do(ps, away, onlooker, rounds, count):
    """Two workers go on in actors while `onlooker(look_on, count)` looks on."""
    going = [actor.do.remote(work, rank, rounds) for rank, actor in enumerate(away)]
    wait_until(lambda: ps.versions[0] > 0, 60, "rounds begin")
    assert len(set(onlooker(look_on, count))) > 1, "rounds went on meanwhile"
    assert ray.get(going) == [rounds, rounds]
    assert (ps.pull() == 2 * rounds).all()
    ps.set(slots={"twice": 5 * ONES})
    assert (ps.slots("twice") == 5).all()
    assert (ps.pull() == 2 * rounds).all()
    ps.configure(lr=3.0)
    with ps.worker() as w:
        w.push(ONES)
        assert (w.pull() == 2 * rounds + 3).all()
    assert (ps.slots("twice") == 7).all()


def test_processes_that_are_no_workers_read_and_set_while_rounds_go_on():
    with server(0, rule=two_streams, quorum=2) as (ps,):
        away = [workers.Worker.remote(ps) for _ in range(2)]
        check_what_others_do(ps, away, lambda function, *args: function(ps, *args), 6000, 500)
        for actor in away:
            ray.kill(actor)


def test_what_has_closed_is_applied_with_what_there_was():
    with server(2, rule=two_streams) as (ps, a, b):
        a.push(ONES)
        b.push(ONES)
        ps.configure(lr=10.0)
        a.push(ONES)
        ps.set(slots={"twice": 100 * ONES})
        b.push(ONES)
        assert (ps.pull() == 22).all()
        assert (ps.slots("twice") == 104).all()


# Refusals


def test_pushes_need_a_worker(shared):
    with shared(1) as (ps, a):
        for push in (ps.push, ps.push_pull, ps.push_async):
            with pytest.raises(fastps.WorkerRequiredError, match="use `with ps"):
                push(ONES)
        assert (a.pull() == 0).all()


@pytest.mark.parametrize(
    ("policy", "options", "says"),
    [
        ({}, {"isolation": "none"}, "isolation"),
        ({}, {"rule": fastps.DCASGD(0.1)}, "DCASGD"),
        ({"reduce": "median"}, {}, "reduce"),
        ({"backup": 1, "deterministic": True}, {}, "deterministic"),
        ({"straggler_timeout": 1.0, "deterministic": True}, {}, "deterministic"),
        ({"deterministic": "no"}, {}, "deterministic: expected True or False"),
        ({"workers": 2, "backup": 2}, {}, "backup: expected fewer than the 2 workers"),
        ({"backup": -1}, {}, "backup"),
        ({"backup": 1.0}, {}, "backup"),
        ({"backup": 256}, {}, "backup"),
        ({"workers": 100}, {"max_workers": 50}, "max_workers"),
    ],
)
def test_a_server_that_cannot_be_is_refused(policy, options, says):
    with pytest.raises(fastps.OptionError, match=says):
        fastps.ParameterServer(np.zeros(4), consistency=fastps.BSP(**policy), **options)


def test_a_deterministic_server_asks_who_is_who():
    with fastps.ParameterServer(np.zeros(4), consistency=fastps.BSP(deterministic=True)) as ps:
        for rank in (None, 1):
            with pytest.raises(fastps.RankError, match="pass a rank from 0 to 0"):
                ps.worker(rank)
        with ps.worker(np.int64(0)) as w:
            assert w.rank == 0


def test_gradients_that_do_not_fit_leave_the_round_as_it_was(shared):
    with shared(2) as (_, a, b):
        first = a.clock
        wrong = [np.ones(N + 1, np.float32), np.ones(N), {"a": ONES}, ONES.reshape(7, -1)]
        a.push(ONES, step=False)
        for grads in wrong:
            for step in (False, True):
                with pytest.raises(fastps.ParameterError):
                    a.push(grads, step=step)
                with pytest.raises(fastps.ParameterError):
                    a.push_pull(grads, step=step)
        with pytest.raises(fastps.OptionError, match="nothing to resume"):
            a.push(ONES, resume=object())
        with pytest.raises(fastps.OptionError):
            a.push(ONES, pulled=ONES)
        with pytest.raises(fastps.OptionError, match="timeout"):
            a.push(ONES, timeout=-1)
        with pytest.raises(fastps.ParameterError):
            a.pull(out=np.ones(3))
        assert a.clock == first
        a.push(ONES)
        b.push(10 * ONES)
        assert (a.pull() == 12).all()


def test_a_push_that_is_not_finite_is_no_gradient_of_the_round(shared):
    bad = ONES.copy()
    bad[N // 2] = np.nan
    with shared(2, reduce="mean") as (ps, a, b):
        (first, _), skipped = ps.versions, ps.stats().shards[0].skipped
        a.push(4 * ONES, step=False)
        assert not a.push(bad, step=False).counted
        assert a.clock == first
        assert not a.push(bad).counted
        assert not b.push(-np.inf * ONES).counted
        assert (a.pull() == 4).all()
        for w in (a, b):
            w.push(bad)
        assert (a.pull() == 4).all()
        assert a.reply.versions == (first + 2,) * 2
        assert ps.stats().shards[0].skipped == skipped + 5


def test_a_push_that_is_refused_for_what_is_not_finite_ends_no_step():
    with server(2, nonfinite="raise") as (_, a, b):
        a.push(ONES, step=False)
        for step in (False, True):
            with pytest.raises(fastps.NonfiniteError):
                a.push(np.inf * ONES, step=step)
        assert a.clock == 0
        a.push(ONES)
        b.push(ONES)
        assert (a.pull() == 3).all()


def clipped_by_value(grads):
    return [np.clip(gradient, -gradient.dtype.type(0.7), gradient.dtype.type(0.7)) for gradient in grads]


def clipped_by_norm(grads):
    norms = [np.linalg.norm(gradient.astype(np.float64)) for gradient in grads]
    assert min(norms) < 2 < max(norms)
    return [g * min(1.0, 2.0 / (norm + 1e-6)) for g, norm in zip(grads, norms, strict=True)]


CLIPS = {"value": ({"clip_value": 0.7}, clipped_by_value), "norm": ({"clip_norm": 2.0}, clipped_by_norm)}


@samples(clip=["value", "norm"], reduce=["mean", "sum"], dtype=[np.float32, np.float64])
def test_each_gradient_is_clipped_before_it_joins_the_others(rng, clip, reduce, dtype):
    options, clipped = CLIPS[clip]
    grads = [(scale * rng.standard_normal(N)).astype(dtype) for scale in (0.01, 1, 3, 0.5)]
    with server(3, np.zeros(N, dtype), reduce=reduce, **options) as (_, a, b, c):
        for w, gradient in zip((a, b, c), grads, strict=False):
            w.push(gradient, step=w is not c)
        c.push(grads[3])
        cut = clipped(grads)
        total = cut[0] + cut[1] + (cut[2] + cut[3])
        expected = total / dtype(4) if reduce == "mean" else total
        if clip == "value":
            assert a.pull().tobytes() == expected.tobytes()
        else:
            np.testing.assert_allclose(a.pull(), expected, rtol=2e-5 if dtype == np.float32 else 1e-12, atol=1e-6)


def test_a_mapping_of_parameters_with_rules_of_its_own_goes_in_rounds():
    params = {"bias": np.zeros(5), "layer": {"weight": np.zeros((40, 7), np.float32)}}
    rules = {"bias": fastps.SGD(1.0), "*": fastps.SGD(2.0, momentum=0.5)}
    with server(2, params, rule=rules) as (ps, a, b):
        grads = {"bias": np.ones(5), "layer": {"weight": np.ones((40, 7), np.float32)}}
        for _ in range(2):
            a.push(grads, step=False)
            a.push(grads)
            b.push(grads)
        found = a.pull()
        assert (found["bias"] == -6).all()
        assert (found["layer"]["weight"] == -2 * (3 + 4.5)).all()
        (slot,) = ps.slots()
        assert (ps.slots(slot)["layer"]["weight"] == 4.5).all()


def test_a_worker_that_has_left_says_so(shared):
    with shared(2) as (_, a, b):
        b.close()
        b.close()
        with pytest.raises(fastps.ClosedError, match="it has left"):
            b.push(ONES)
        assert uniform(a.pull()) == 0


# Interrupts: what Ctrl-C leaves behind, wherever it comes


class Interrupted:
    """Raises KeyboardInterrupt once, before or behind one call of another object."""

    def __init__(self, inner, name, behind):
        self._inner, self._name, self._behind = inner, name, behind

    def __getattr__(self, name):
        method = getattr(self._inner, name)
        if name != self._name:
            return method

        def call(*arguments):
            self._name = None
            if self._behind:
                method(*arguments)
            raise KeyboardInterrupt

        return call


def notes_of(push, *arguments, **options):
    with pytest.raises(KeyboardInterrupt) as caught:
        push(*arguments, **options)
    return " ".join(caught.value.__notes__)


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("behind", [False, True])
def test_an_interrupt_where_gradients_are_given_gives_them_once(shared, behind, closes):
    with shared(2) as (ps, a, b):
        first = a.clock
        if closes:
            b.push(10 * ONES)
        a._membership = Interrupted(a._membership, "give", behind)
        assert "the next operation gives them: do not push them again" in notes_of(a.push, ONES)
        if not closes:
            b.push(10 * ONES)
        assert (a.pull() == 11).all()
        assert (b.pull() == 11).all()
        a.push(100 * ONES)
        b.push(1000 * ONES)
        assert (a.pull() == 1111).all()
        assert (a.clock, b.clock, ps.versions) == (first + 2, first + 2, (first + 2,) * 2)


def test_an_interrupt_behind_the_end_of_a_round_says_that_it_was_given(shared):
    with shared(1) as (_, a):
        a._rounds = Interrupted(a._rounds, "help", behind=False)
        assert f"the gradients were given to round {a.clock}" in notes_of(a.push, ONES)
        assert (a.pull() == 1).all()
        a.push(ONES)
        assert (a.pull() == 2).all()


@pytest.mark.parametrize("step", [False, True])
@pytest.mark.parametrize("behind", [False, True])
def test_an_interrupt_where_gradients_are_put_into_place_leaves_nothing_of_the_step(shared, behind, step):
    with shared(1) as (_, a):
        a.push(1000 * ONES, step=False)
        a._rounds = Interrupted(a._rounds, "deposit_directly", behind)
        assert "nothing of this step counts: push all its gradients again" in notes_of(a.push, ONES, step=step)
        a.push(ONES, step=False)
        a.push(10 * ONES)
        assert (a.pull() == 11).all()


def test_a_future_that_fails_leaves_the_gradients_of_the_step_where_they_are(shared):
    with shared(1) as (_, a):
        a.push(ONES, step=False)
        with pytest.raises(fastps.WaitTimeoutError, match="nothing was done"):
            a.push(concurrent.futures.Future(), timeout=0.05)
        a.push(ONES)
        assert (a.pull() == 2).all()


def test_an_interrupt_while_others_are_waited_for_says_that_the_push_counts(shared):
    with shared(2) as (_, a, b):
        a._rounds = Interrupted(a._rounds, "pull_of", behind=False)
        b.push(ONES)
        assert f"the push counts in round {a.clock}" in notes_of(a.push_pull, ONES)
        assert (a.pull() == 2).all()


def test_a_step_has_an_end():
    with server(1, np.zeros(2, np.float32), num_shards=1) as (_, a):
        ones = np.ones(2, np.float32)
        for _ in range(65534):
            a.push(ones, step=False)
        a.push(ones)
        assert (a.pull() == 65535).all()
        for _ in range(65535):
            a.push(ones, step=False)
        with pytest.raises(fastps.OptionError, match="at most 65535 gradients"):
            a.push(ones)
        a.end_step()
        assert (a.pull() == 2 * 65535).all()
