"""`fastps checkpoint`: what its commands print and refuse."""

import copy
import json
import os
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastps
from fastps import Table, cli
from fastps.checkpoint import export
from fastps.checkpoint.manifest import NAME
from fastps.cli import options
from fastps.cli.checkpoint import verify
from tests.support.checkpoints import flip, rewrite, write_checkpoint
from tests.support.extent import short_or_long

Pair = namedtuple("Pair", "one other")
ROWS = {5: [[1.0, 2.0], [0.5]], 6: [[3.0, 4.0], [0.5]]}
TABLES = {"users": (Table(2, rule=fastps.RowAdagrad(0.25), init=1.0), ROWS)}


@fastps.rule
def halving(p, g, *, lr=0.5):
    return p - lr * g


def done(capsys, *words):
    """What a command that succeeds prints."""
    assert cli.main(["checkpoint", *map(str, words)]) == 0
    out, errors = capsys.readouterr()
    assert errors == ""
    return out


def failed(capsys, code, *words):
    """The line on stderr."""
    assert cli.main(["checkpoint", *map(str, words)]) == code
    _, errors = capsys.readouterr()
    assert errors.count("\n") == 1
    return errors


def test_the_commands_are_listed_and_each_has_help(capsys):
    listed = done(capsys, "--help")
    for name in ("ls", "show", "verify", "export"):
        assert f"\n  {name} " in listed
        assert done(capsys, name, "-h").startswith(f"Usage: fastps checkpoint {name} [OPTIONS]")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "fastps checkpoint: Missing command; the commands are ls, show, verify, export"),
        (["lss"], "fastps checkpoint: No such command 'lss'; the commands are ls, show, verify, export"),
        (["show"], "fastps checkpoint show: Missing argument 'PATH'"),
        (["export", "a"], "fastps checkpoint export: Missing option '-o' / '--output'"),
        (["export", "a", "-o", "a.txt"], "expected a file that ends in .safetensors, .pt, .pth, .parquet, got 'a.txt'"),
        (["export", "a", "-o", "a", "--format", "npz"], "expected one of safetensors, pt, parquet, got 'npz'"),
        (["export", "a", "-o", "a.pt", "--table", "t"], "--table goes with parquet, not with pt"),
        (["export", "a", "-o", "a.parquet", "--sto"], "--stored is for arrays"),
        (["verify", ""], "expected a path, got ''"),
        (["ls", "a", "b"], "b"),
    ],
    ids=str,
)
def test_what_cannot_be_run_as_asked_is_refused(capsys, words, told):
    assert told in failed(capsys, 2, *words)


def test_a_word_that_the_name_of_an_argument_begins_with_is_a_path(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "pat", np.zeros(3))
    assert "pat:" in done(capsys, "verify", "pat")


@pytest.mark.parametrize("command", [["ls"], ["show"], ["verify"], ["export", "-o", "a.pt"]])
def test_a_path_that_is_not_there_is_one_line(capsys, tmp_path, command):
    assert "cannot be read (No such file" in failed(capsys, 1, *command, tmp_path / "none")


@pytest.mark.parametrize("command", [["show"], ["verify"], ["export", "-o", "a.pt"]])
def test_another_format_and_damage_of_the_manifest_are_one_line(capsys, tmp_path, command):
    write_checkpoint(tmp_path, np.zeros(3))
    text = (tmp_path / NAME).read_text()
    for changed in (text.replace('"version": 1,', '"version": 99,'), text.replace("Async", "async"), "\x1b[31m"):
        (tmp_path / NAME).write_text(changed)
        line = failed(capsys, 1, *command, tmp_path)
        assert line.startswith(f"fastps checkpoint {command[0]}: {tmp_path}/{NAME}: ")
        assert "\x1b" not in line


def test_ls_lists_checkpoints_with_the_newest_last(capsys, tmp_path):
    assert done(capsys, "ls", tmp_path) == "no checkpoints\n"
    assert json.loads(done(capsys, "ls", "--json", tmp_path)) == []
    write_checkpoint(tmp_path / "step-2", {"w": np.zeros(300), "b": np.zeros(3)}, TABLES, step=1234, created=2.0)
    write_checkpoint(tmp_path / "step-1", np.zeros(3), created=1.0)
    os.truncate(next((tmp_path / "step-1").glob("arrays-*")), 5)
    (tmp_path / ".step-3-0123456789ab").mkdir()
    head, one, two, unfinished = done(capsys, "ls", tmp_path).splitlines()
    assert head.split() == ["NAME", "CREATED", "UPDATES", "SHARDS", "SIZE", "ARRAYS", "TABLES", "STATE"]
    assert "damaged (arrays-00000-00000.safetensors: 5 bytes in place of 128)" in one
    assert two.split()[0] == "step-2"
    assert two.split()[3:5] == ["1,234", "1"]
    assert two.split()[-3:] == ["2", "1", "complete"]
    assert unfinished.split()[-3:] == ["-", "-", "unfinished"]
    found = json.loads(done(capsys, "ls", "--json", tmp_path))
    assert [(entry["name"], entry["state"]) for entry in found] == [
        ("step-1", "damaged"), ("step-2", "complete"), (".step-3-0123456789ab", "unfinished"),
    ]  # fmt: skip
    assert found[1].items() >= {"updates": [1234], "shards": 1, "arrays": 2, "tables": 1, "problem": None}.items()


def test_ls_of_a_checkpoint_itself_says_so(capsys, tmp_path):
    write_checkpoint(tmp_path, np.zeros(3))
    assert "is a checkpoint itself" in failed(capsys, 2, "ls", tmp_path)


def test_names_that_move_the_cursor_are_escaped(capsys, tmp_path):
    name = "a\x1b[2J\n" + os.fsdecode(b"\xff")
    write_checkpoint(tmp_path / name, {"w\x1b[2J\n": np.zeros(3), "text": np.array(["ab"])})
    for command in (["ls", tmp_path], ["show", tmp_path / name], ["verify", tmp_path / name]):
        out = done(capsys, *command)
        assert "\x1b" not in out
        assert "\\x1b[2J\\n" in out
    done(capsys, "export", tmp_path / name, "-o", tmp_path / f"{name}.safetensors")


def test_of_the_directory_of_save_every_the_newest_counts(capsys, tmp_path):
    for step, created in ((8, 1e9), (9, 2e9)):
        folder = tmp_path / f"step-{step:012}"
        folder.mkdir()
        write_checkpoint(folder, {"w": np.zeros(3)}, step=step, created=created)
    assert "updates" in done(capsys, "show", tmp_path)
    assert json.loads(done(capsys, "show", tmp_path, "--json"))["path"] == str(folder)
    assert str(folder) in done(capsys, "verify", tmp_path)
    done(capsys, "export", tmp_path, "-o", tmp_path / "w.safetensors")


def test_show_names_everything(capsys, tmp_path):
    write_checkpoint(
        tmp_path, {"layers": [Pair(np.zeros((2, 3)), np.ones(3, np.float16))]}, TABLES, rule=halving(0.25), step=12
    )
    next(tmp_path.glob("rows-*")).unlink()
    out = done(capsys, "show", tmp_path)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for line in (
        "updates 12",
        "consistency Async(workers=1, straggler_timeout=None, lease=10.0)",
        f"classes {__name__}.Pair (import their modules before restore)",
        "layers/0/one float64 float64 [2, 3] 12 -",
        "layers/0/other float16 float32 [3] 12 -",
        f"* {halving(0.25)!r} (of the user) lr 0.25",
        "users 2 float32 int64 2 0 12 RowAdagrad(0.25) eps 1e-10, initial_accumulator_value 0, lr 0.25",
        "users: init Constant(value=1.0), seed 0, admit 1, track False",
        "arrays-00000-00000.safetensors 244 B -",
    ):
        assert line in lines, out
    assert lines[-1].startswith("rows-00000-00000.arrow ")
    assert lines[-1].endswith(" missing")


def test_show_says_the_same_as_json(capsys, tmp_path):
    write_checkpoint(tmp_path, {"w": np.zeros((2, 3))}, TABLES, rule=fastps.Adam(0.5), slots={"m": 0.0, "v": 0.0})
    found = json.loads(done(capsys, "show", tmp_path, "--json"))
    assert found["arrays"] == [
        {"names": ["w"], "dtype": "float64", "stored": "float64", "shape": [2, 3], "step": 7, "slots": ["m", "v"]}
    ]
    assert found["rules"][0]["hyper"]["lr"] == 0.5
    assert found["gradients"] == {"nonfinite": "apply", "clip_norm": None, "clip_value": None}
    (users,) = found["tables"]
    assert users.items() >= {"name": "users", "dim": 2, "keys": "int64", "rows": 2, "changes": 0, "steps": [7]}.items()
    assert users["rule"]["rule"] == "RowAdagrad(0.25)"
    assert [file["problem"] for file in found["files"]] == [None, None]


def test_verify_lists_every_damaged_file(capsys, tmp_path):
    write_checkpoint(tmp_path, np.zeros(30), TABLES)
    assert "2 files" in done(capsys, "verify", tmp_path)
    arrays, rows = sorted(file for file in tmp_path.iterdir() if file.name != NAME)
    flip(arrays)
    flip(rows)
    assert cli.main(["checkpoint", "verify", str(tmp_path)]) == 1
    out, errors = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == [str(arrays), str(rows)]
    assert errors.startswith(f"fastps checkpoint verify: {arrays}: the bytes from 0 on are not those that were written")
    assert errors.endswith("(and 1 more)\n")


def test_progress_is_shown_on_a_terminal_alone(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "LARGE", 1)
    write_checkpoint(tmp_path, np.zeros(3))
    done(capsys, "verify", tmp_path)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main(["checkpoint", "verify", str(tmp_path)]) == 0
    assert "100%" in capsys.readouterr().err


def test_export_writes_by_the_name_of_the_file(capsys, tmp_path):
    write_checkpoint(tmp_path / "saved", {"w": np.zeros(3), "text": np.array(["ab"])}, TABLES)
    out = done(capsys, "export", tmp_path / "saved", "-o", tmp_path / "a.safetensors")
    assert out == f"{tmp_path}/a.safetensors: 1 arrays; omitted, as their types are unknown to others: ['text']\n"
    assert done(capsys, "export", tmp_path / "saved", "-o", tmp_path / "a.parquet").endswith("a.parquet: 2 rows\n")
    done(capsys, "export", tmp_path / "saved", "--out", tmp_path / "b", "--format", "parquet", "--table", "users")
    assert (tmp_path / "b").read_bytes()[:4] == b"PAR1"
    assert "there already" in failed(capsys, 1, "export", tmp_path / "saved", "-o", tmp_path / "b", "--format", "pt")
    assert "no table 'no'" in failed(
        capsys, 2, "export", tmp_path / "saved", "-o", tmp_path / "c.parquet", "--table", "no"
    )
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "a.safetensors", "b", "saved"]


def test_export_for_torch_says_how_to_install_it(capsys, tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "saved", np.zeros(3))
    monkeypatch.setattr(options, "missing", lambda needs: list(needs.values()))
    assert "pip install torch" in failed(capsys, 2, "export", tmp_path / "saved", "-o", tmp_path / "a.pt")
    assert os.listdir(tmp_path) == ["saved"]


def test_export_of_a_damaged_checkpoint_writes_nothing(capsys, tmp_path):
    write_checkpoint(tmp_path / "saved", np.zeros(30), TABLES)
    flip(next((tmp_path / "saved").glob("rows-*")))
    for name in ("a.safetensors", "a.pt", "a.parquet"):
        assert "not those that were written" in failed(capsys, 1, "export", tmp_path / "saved", "-o", tmp_path / name)
    assert os.listdir(tmp_path) == ["saved"]


def test_an_interrupted_export_leaves_nothing(capsys, tmp_path, monkeypatch):
    def write(path, named):
        path.write_bytes(b"some")
        raise KeyboardInterrupt

    write_checkpoint(tmp_path / "saved", np.zeros(3))
    monkeypatch.setattr(export, "write_safetensors", write)
    assert "interrupted" in failed(capsys, 130, "export", tmp_path / "saved", "-o", tmp_path / "a.safetensors")
    assert os.listdir(tmp_path) == ["saved"]


@pytest.mark.parametrize(
    "words", [["ls", "."], ["show", "saved"], ["verify", "saved"], ["export", "saved", "-o", "a.safetensors"],
              ["export", "saved", "-o", "a.parquet"]], ids=str
)  # fmt: skip
def test_no_command_loads_ray_or_numba_or_torch(tmp_path, words):
    write_checkpoint(tmp_path / "saved", {"layers": [Pair(np.zeros(2), np.ones(3))]}, TABLES, rule=halving())
    check = (
        f"import sys, fastps.cli; code = fastps.cli.main({['checkpoint', *words]}); "
        "sys.exit(code or bool({'ray', 'numba', 'torch', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=short_or_long(50, 500), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_manifest_that_says_anything_is_no_traceback(tmp_path, data):
    saved, out = tmp_path / "saved", tmp_path / "out"
    if not saved.exists():
        params = {"layers": [Pair(np.zeros(2), np.ones(3))], "n": np.array([3])}
        write_checkpoint(saved, params, TABLES, rule=fastps.Adam(0.1), slots={"m": 0.0, "v": 0.0})
        (tmp_path / "manifest").write_bytes((saved / NAME).read_bytes())
    server = copy.deepcopy(json.loads((tmp_path / "manifest").read_text())["server"])
    places = []

    def walk(value):
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(server)
    container, key = data.draw(st.sampled_from(range(len(places))).map(places.__getitem__))
    container[key] = data.draw(JSON)
    (saved / NAME).write_bytes((tmp_path / "manifest").read_bytes())
    rewrite(saved, server=server)
    commands = [["ls", tmp_path], ["show", saved], ["show", "--json", saved], ["verify", saved]]
    commands += [["export", saved, "-o", out, "--format", kind] for kind in ("safetensors", "parquet")]
    for words in commands:
        assert cli.main(["checkpoint", *map(str, words)]) in (0, 1, 2)
        out.unlink(missing_ok=True)
