"""`python -m bench sweep`, on sizes that take no time."""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import pytest_benchmark.cli
import ray

import fastps
from bench import peers
from bench.__main__ import NORMAL, QUICK_PEERS, command
from bench.harness.machine import commit
from bench.harness.sample import PERCENTILES
from bench.peers import shared_array
from bench.sweep import cluster, program, results, run
from bench.sweep.grid import Setting
from tests.support.extent import short_or_long
from tests.support.waiting import GUARD_SECONDS, wait_until
from tests.unit.bench.report.sample import sample

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "bench", "sweep"]
QUICK = QUICK_PEERS.split(",")


@pytest.fixture(scope="module", autouse=True)
def end_of_the_tracker():
    """multiprocessing starts a process for whoever makes shared memory with a name, and ends it with that process."""
    yield
    from multiprocessing import resource_tracker

    resource_tracker._resource_tracker._stop()


@pytest.fixture
def few_turns(monkeypatch):
    """For what is asked of the answers and not of the times."""
    monkeypatch.setattr(run, "TURNS", 3)


def test_a_sweep_measures_every_setting_and_keeps_it_in_two_forms(ray_local, few_turns, tmp_path, monkeypatch, capsys):
    path = tmp_path / "a.parquet"
    few = ["--sizes", "80,8K", "--workers", "2", "--ops", "pull,push", "--shards", "1", "--seconds", "0.05"]
    command(["sweep", *few, "--peers", QUICK_PEERS, "-o", str(path)])
    assert capsys.readouterr().out.endswith(f"{path} and {tmp_path / 'a.json'}\n")
    found = results.load(path)
    assert found.settings() == {Setting(n, 1, 2, "add") for n in (80, 8000)}
    assert len(found.rows) == 2 * 2 * (1 + len(QUICK))
    for row in found.rows:
        told = [row[name] for name in PERCENTILES if row[name] is not None]
        assert told == sorted(told)
        assert {row["min_ns"], row["median_ns"], row["max_ns"]} <= set(told)
        assert (row["p999_ns"] is None) == (row["calls"] < 5_000)
        assert sum(row["bin_counts"]) == row["calls"] > 0
        assert row["ops_second"] > 0
        assert row["transports"] == (["shm", "shm"] if row["subject"] == "fastps" else [])
        assert row["work"] == peers.work_of(row["subject"], row["op"], "add")
        assert (row["to_reference"] is None) != peers.comparable(row)
        assert row["to_reference"] in (1, None) or row["subject"] != peers.REFERENCES[row["op"]]
        assert len(row["turns_ops_second"]) == len(row["turns_ns"]) == run.TURNS
        assert (row["lock_waits"] is not None) == (row["subject"] == "fastps")
    assert found.about["machine"]["processor"]["cores"] == os.cpu_count()
    assert found.about["overhead_ns"] >= 0
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest-benchmark", "compare", "a.json"])
    pytest_benchmark.cli.main()
    assert capsys.readouterr().out.count(f": {1 + len(QUICK)} tests") == 4
    assert len(json.loads((tmp_path / "a.json").read_text())["benchmarks"]) == len(found.rows)


def test_ctrl_c_keeps_what_is_done_and_resume_goes_on(ray_local, tmp_path, capsys):
    path = tmp_path / "a.parquet"
    few = ["--sizes", "80,800,8K,80K", "--workers", "1", "--shards", "1", "--ops", "push", "--peers", "memcpy"]
    running = subprocess.Popen(
        [*COMMAND, *few, "--seconds", "0.2", "-o", path],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": "local"},
        # A shell starts what runs in its background with interrupts ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        wait_until(path.exists, 120, "the first setting")
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=GUARD_SECONDS)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 130, errors
    assert errors.count("\n") == 1
    assert errors.endswith(f": go on with python -m bench sweep --resume -o {path}\n")
    before = results.load(path)
    assert 1 <= len(before.settings()) < 4
    with pytest.raises(SystemExit) as ended:
        command(["sweep", *few, "--seconds", "0.3", "-o", str(path), "--resume"])
    errors = capsys.readouterr().err
    assert (ended.value.code, errors.count("\n")) == (2, 1)
    assert "--seconds 0.2" in errors
    command(["sweep", "--resume", "-o", str(path)])  # as it was told to do; the options are in the file
    after = results.load(path)
    assert len(after.settings()) == 4
    assert after.rows[: len(before.rows)] == before.rows
    assert after.about["begun"] == before.about["begun"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sizes", "8X"], "'8X'"),
        (["--sizes", "1TiB"], "1 TiB with 2 workers and add takes about 16 TiB, of which"),
        (["--workers", "0"], "from 1 to 64"),
        (["--ops", "pul"], "'pul'"),
        (["--rules", "adamm"], "'adamm'"),
        (["--peers", "mpi"], "'mpi'"),
        (["--transport", "tcp"], "'tcp'"),
        (["--placement", "moon"], "'moon'"),
        (["--address", "127.0.0.1:1"], "127.0.0.1:1"),
        (["--address", "local"], "--address: expected HOST:PORT of a running Ray cluster, got 'local'; omit it"),
        (["--address", "auto", "--local-cluster", "2"], "exclude"),
        (["--workers", "64", "--sizes", "200M"], "64 workers"),
        (["-o", "/nowhere/a.parquet"], "/nowhere"),
        (["-o", "nothing.parquet", "--resume"], "no such file"),
        (["--resume"], "--output"),
        (["-o", "a.json"], "ends in .parquet"),
        (["-o", "a.csv"], "ends in .parquet"),
        (["-o", "a"], "ends in .parquet"),
        (["-o", str(ROOT / "bench/results/sweep.parquet")], "there already"),
        (["-o", str(ROOT / "bench/results/dense.parquet")], "dense.json is there already"),
        (["--sizes", "900GB"], "900 GB with 2 workers"),
        (["--sizes", "900GB"], "TB"),
        (["--sizes", "512GiB"], "512 GiB with 2 workers"),
        (["--seconds", "soon"], "soon"),
        (["--seconds", "nan"], "from 0.01 to 600, got nan"),
        (["--quick", "--full"], "exclude each other"),
        (["--placement", "local,moon"], "'moon'"),
        (["--local-cluster", "1"], "2<=x<=16"),
        (["--size", "80"], "--sizes"),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_code_2(options, said, capsys):
    with pytest.raises(SystemExit) as ended:
        command(["sweep", *options])
    out, errors = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert errors.startswith("bench sweep: ")
    assert errors.count("\n") == 1
    assert said in errors


@pytest.mark.parametrize("name", ["a.json", "a.csv"])
def test_a_wrong_name_of_the_output_leaves_its_file_as_it_is(tmp_path, name, capsys):
    (tmp_path / name).write_text("mine")
    with pytest.raises(SystemExit) as ended:
        command(["sweep", "-o", str(tmp_path / name)])
    assert (ended.value.code, (tmp_path / name).read_text()) == (2, "mine")


def test_a_json_file_that_no_sweep_has_written_is_not_overwritten_by_resume(tmp_path, capsys):
    results.save(sample(), tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text('{"benchmarks": [{"fullname": "mine"}]}')
    with pytest.raises(SystemExit) as ended:
        command(["sweep", "--resume", "-o", str(tmp_path / "a.parquet")])
    assert ended.value.code == 2
    assert "a.json is there already" in capsys.readouterr().err


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ConnectionError("no cluster"), run.StuckError("stuck")])
def test_a_sweep_that_ends_before_its_first_row_promises_no_file(tmp_path, monkeypatch, capsys, failure):
    def fail(*arguments):
        raise failure

    monkeypatch.setattr(program, "program", fail)
    path = tmp_path / "e.parquet"
    with pytest.raises(SystemExit):
        command(["sweep", "--sizes", "80", "-o", str(path)])
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "--resume" not in errors
    assert str(path) not in errors


def changed(result, **options):
    """With other options, as a sweep that was made with them keeps them."""
    about = {**result.about, "options": {**NORMAL, **options}, "commit": commit()}
    return results.Results(result.rows, about)


def test_a_narrower_option_leaves_the_rest_of_the_grid_to_the_next_resume(tmp_path, monkeypatch):
    """The options of a file are those of its whole grid, also where only a part of it was gone on with."""
    path, measured = tmp_path / "a.parquet", []
    monkeypatch.setattr(program, "cluster", lambda *_: contextlib.nullcontext([]))
    monkeypatch.setattr(run, "sweep", lambda settings, *_: measured.extend(settings) or [[]])
    kept = changed(sample(sizes=(80,)), sizes="80,8K", workers="1,2", shards="1", ops="pull,push", peers="memcpy")
    results.save(kept, path)
    command(["sweep", "--resume", "-o", str(path), "--sizes", "8K", "--workers", "1", "--placement", "local,spread"])
    assert measured == [Setting(8000, 1, 1, "add", placement=where) for where in ("local", "spread")]
    after = results.load(path)
    assert after.rows == kept.rows
    options = {name: after.about["options"][name] for name in ("sizes", "workers", "placement")}
    assert options == {"sizes": "80,8K", "workers": "1,2", "placement": "local,spread"}
    measured.clear()
    command(["sweep", "--resume", "-o", str(path)])
    assert Setting(8000, 1, 2, "add") in measured


@pytest.mark.parametrize("broken_off", [True, False])
def test_resume_takes_the_options_from_the_file_and_what_is_given_beside_it(tmp_path, monkeypatch, broken_off):
    asked = []
    monkeypatch.setattr(program, "program", lambda *arguments: asked.append(arguments))
    kept = changed(sample(), sizes="80,80K", workers="1", ops="pull,push", peers="memcpy", seconds=0.25)
    results.save(kept, tmp_path / "a.parquet")
    more = [] if broken_off else ["--workers", "1,2"]
    command(["sweep", "--resume", "-o", str(tmp_path / "a.parquet"), *more])
    ((grid, names, options, _, found),) = asked
    assert (grid.nbytes, grid.workers, grid.ops) == ((80, 80_000), (1,) if broken_off else (1, 2), ("pull", "push"))
    assert (names, options["seconds"], len(found.rows)) == (("memcpy",), 0.25, len(kept.rows))


def test_rows_of_another_processor_are_not_gone_on_with(tmp_path, capsys):
    kept = changed(sample())
    kept.about["machine"]["processor"]["model"] = "another"
    results.save(kept, tmp_path / "a.parquet")
    with pytest.raises(SystemExit) as ended:
        command(["sweep", "--resume", "-o", str(tmp_path / "a.parquet")])
    assert ended.value.code == 2
    assert "begun with the processor another" in capsys.readouterr().err


def test_what_the_cluster_cannot_do_is_one_line_and_code_2(ray_local, capsys):
    with pytest.raises(SystemExit) as ended:
        command(["sweep", "--placement", "remote", "--sizes", "80", "--peers", ""])
    out, errors = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert errors.startswith("bench sweep: ")
    assert errors.count("\n") == 1
    assert "--local-cluster" in errors


@fastps.rule
def broken(p, g, *, bias=0.0):
    return p + 2 * g


@pytest.fixture(scope="module")
def crew(ray_local):
    crew = run.Crew(cluster.nodes())
    yield crew
    for worker in crew.workers.values():
        ray.kill(worker)


@pytest.mark.parametrize("ops", [("push",), ("pull", "push_pull")])
def test_a_broken_kernel_gives_no_times(crew, few_turns, monkeypatch, ops):
    monkeypatch.setitem(run.RULES, "add", broken)
    with pytest.raises(run.WrongAnswer, match="pushes of ones to fastps"):
        run.measure(Setting(8000, 1, 1, "add"), ops, crew, 0.02, ("memcpy",))


def test_a_peer_that_loses_pushes_gives_no_times(crew, few_turns, monkeypatch):
    def lose(server, setting, workers, subjects, runs):
        subjects["shared_array"].state.params[3] -= 1
        return check(server, setting, workers, subjects, runs)

    check = run.check
    monkeypatch.setattr(run, "check", lose)
    with pytest.raises(run.WrongAnswer, match="pushes of ones to shared_array"):
        run.measure(Setting(8000, 1, 2, "add"), ("push",), crew, 0.02, ("shared_array",))


@pytest.mark.parametrize("rule", run.RULES)
def test_every_subject_does_the_work_that_its_row_says(crew, few_turns, rule):
    """What peers hold in the end is checked as what fastps does; ratios are to the same work alone."""
    rows = run.measure(Setting(8000, 1, 2, rule), ("pull", "push", "push_pull"), crew, 0.02, tuple(QUICK))
    assert len(rows) == 3 * (1 + len(QUICK))
    for row in rows:
        work = {"memcpy": "copy", "triad": "triad"}.get(row.subject, "copy" if row.op == "pull" else rule)
        same = row.subject != "triad" and (row.op == "pull" or row.subject != "memcpy")
        assert (row.work, row.flat()["work"]) == (work, work)
        assert (row.to_reference is not None) == (row.to_actor is not None) == same


def test_a_peer_that_does_other_work_than_its_row_says_gives_no_times(crew, few_turns, monkeypatch):
    real = peers.module

    class Adding:
        """The peers' module, whose servers add whatever the rule."""

        def __init__(self, name):
            self.found = real(name)

        def create(self, elements, workers, node, rule):
            return self.found.create(elements, workers, node, "add")

    monkeypatch.setattr(peers, "module", Adding)
    with pytest.raises(run.WrongAnswer, match="pushes of ones to ray_actor"):
        run.measure(Setting(8000, 1, 1, "adam"), ("push",), crew, 0.02, ("ray_actor",))


@pytest.mark.parametrize("peer", [name for name in peers.PEERS if not peers.PEERS[name].joins])
def test_peers_do_what_they_stand_for(ray_local, peer):
    module, here = peers.module(peer), ray.get_runtime_context().get_node_id()
    server, out = module.create(1000, 1, here, "add"), np.zeros(1000, np.float32)
    grad = np.full(1000, 2, np.float32)
    for _ in range(3):
        module.push(server, grad)
    pulled = module.pull(server, out)
    expected = {"memcpy": 2, "triad": (1 + 3 * 2) + 3 * 1}.get(peer, 6)
    assert ((out if pulled is None else pulled) == expected).all()
    if hasattr(server, "close"):
        server.close()


GROUPS = tuple(name for name in peers.installed() if peers.PEERS[name].joins)


@pytest.mark.skipif(not GROUPS, reason="without torch")
def test_groups_of_torch_do_what_they_stand_for_one_after_the_other(crew, few_turns):
    """The sweep checks their answers."""
    for workers, rule, names in ((2, "adam", GROUPS), (1, "add", short_or_long(GROUPS[-1:], GROUPS))):
        rows = run.measure(Setting(8000, 1, workers, rule), ("push", "pull"), crew, 0.05, names)
        assert {row.subject for row in rows} == {"fastps", *names}
        assert all(row.summary["calls"] >= 3 * run.TURNS for row in rows)


def test_no_push_of_two_workers_is_lost_in_the_shared_array(crew):
    workers = crew.on([crew.nodes[0].id] * 2, fresh=False)
    server = shared_array.create(20_000, 2, "", "add")
    ray.get([worker.take.remote(20_000, {"shared_array": server}) for worker in workers])
    start = time.time() + 0.1
    runs = ray.get([worker.run.remote("shared_array", "push", 0.3, start) for worker in workers])
    assert (server.state.params == sum(calls for _, _, calls in runs)).all()
    ray.get([worker.drop.remote() for worker in workers])
    server.close()


DIE_IN_A_PUSH = """
import os, pickle, signal, sys
server = pickle.load(sys.stdin.buffer)
server.lock.acquire()
server.state.params[: len(server.state.params) // 2] += 1
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_death_in_a_push_blocks_and_tears_the_shared_array_as_is_said_of_it():
    assert "blocks all others for ever, and leaves its push half done" in peers.PEERS["shared_array"].lacks
    server = shared_array.create(1000, 2, "", "add")
    try:
        done = subprocess.run(
            [sys.executable, "-c", DIE_IN_A_PUSH],
            input=pickle.dumps(server),
            timeout=GUARD_SECONDS,
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL
        assert not server.lock.acquire(timeout=0.2)
        assert (server.state.params[0], server.state.params[-1]) == (1, 0)
    finally:
        server.close()


@pytest.mark.parametrize("rule", run.RULES)
def test_the_answer_is_known_after_more_pushes_than_float32_can_count_finely(crew, rule):
    rows = run.measure(Setting(80, 1, 1, rule), ("push",), crew, 0.5, ())
    assert rows[0].summary["calls"] > 50_000


def test_what_float32_rounds_away_is_expected():
    assert run.after(1000, 1.0) == 1000
    assert run.after(2**24 + 100, 1.0) == 2**24
    assert run.after(3_000_000, 0.1) != pytest.approx(300_000, rel=1e-4)
    assert run.after(0, 1.0) == 0


@pytest.mark.parametrize("transport", ["auto", "ray"])
def test_whatever_carries_it_the_answer_is_right_and_the_row_says_how(crew, transport):
    setting = Setting(8000, 1, 2, "add", transport)
    pull, push = run.measure(setting, ("pull", "push"), crew, 0.1, ())
    assert pull.transports == push.transports == [{"auto": "shm", "ray": "ray"}[transport]] * 2
    assert pull.crossed_bytes == 0  # all are on one node
    assert (pull.summary["median_ns"] > 200_000) == (transport == "ray")  # a call of Ray, or none: a factor of 1,000


def test_a_cluster_of_raylets_here_measures_across_nodes(tmp_path):
    path = tmp_path / "a.parquet"
    options = ["--sizes", "8K", "--shards", "2", "--workers", "2", "--ops", "pull", "--seconds", "0.05", "-o", path]
    options += ["--local-cluster", "2", "--placement", "spread", "--peers", "memcpy,ray_actor,shared_array"]
    done = subprocess.run(
        [*COMMAND, *options], capture_output=True, text=True, timeout=GUARD_SECONDS, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    found = results.load(path)
    ours, copy, actor = found.rows  # an array in shared memory does not leave a node
    nodes = [node["id"] for node in found.about["nodes"]]
    assert ours["transports"] == ["mixed", "mixed"]
    assert ours["shard_nodes"] == nodes
    assert ours["worker_nodes"] == nodes
    assert ours["crossed_bytes"] == pytest.approx((ours["calls"] + 2 * run.TURNS) * 8000 / 2)
    assert copy["crossed_bytes"] == 0
    assert 0 < actor["crossed_bytes"] < (actor["calls"] + 2 * run.TURNS) * 8000
    assert actor["crossed_bytes"] % 8000 == 0
