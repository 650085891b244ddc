"""`fastps demo` as a user runs it: a process of its own, with its own Ray."""

import os
import signal
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "fastps", "demo"]
ENVIRONMENT = {**os.environ, "RAY_ADDRESS": "local", "COLUMNS": "100"}


def run(*options, command=COMMAND):
    return subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=150, env=ENVIRONMENT, check=False
    )


def test_the_demo_trains_on_both_sides_and_compares():
    done = run("--steps", "800", "--seed", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed 3" in done.stdout
    assert "1,600 of 1,600 steps" in done.stdout
    assert "at nice 0" in done.stdout
    rows = {
        cells[0].strip(): cells[1:] for line in done.stdout.splitlines() if len(cells := line.strip("│").split("│")) > 3
    }
    for name in ("steps per second", "pull, median", "pull, p99", "push, median", "push, p99"):
        assert rows[name][2].strip().endswith(" x")
    for cell in rows["test accuracy"][:2]:
        assert float(cell.strip().rstrip("%")) >= 95.0


def test_too_few_steps_end_with_one_line_and_code_1():
    done = run("--steps", "1")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "test accuracy below 95%" in done.stderr


@pytest.mark.parametrize(
    "options",
    [("--steps", "0"), ("--workers", "many"), ("--shards", "-1"), ("--unknown",), ("--address", "127.0.0.1:1")],
)
def test_a_wrong_option_is_one_line_and_code_2(options):
    done = run(*options)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert options[0] in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("module", "package"), [("sklearn", "scikit-learn"), ("rich", "rich")])
def test_a_missing_extra_is_one_line_and_code_2(module, package):
    hidden = f"import sys; sys.modules[{module!r}] = None; from fastps.cli import main; sys.exit(main(['demo']))"
    done = run(command=[sys.executable, "-c", hidden])
    assert done.returncode == 2
    assert done.stderr == f"fastps demo: needs {package}: pip install 'fastps[demo]'\n"


def test_the_command_line_loads_neither_ray_nor_numba():
    check = "import sys, fastps.cli; sys.exit(bool({'ray', 'numba', 'pyarrow', 'rich', 'sklearn'} & set(sys.modules)))"
    assert run(command=[sys.executable, "-c", check]).returncode == 0


@pytest.mark.parametrize("moment", ["Starting Ray", "Ray actor"])
def test_an_interrupt_ends_with_code_130_and_without_a_traceback(moment):
    # As a terminal does it: to the whole process group. What is left behind is checked after each module.
    demo = subprocess.Popen(
        [*COMMAND, "--steps", "20000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
        # A shell starts what runs in its background with interrupts ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for line in demo.stdout:
            if line.startswith(moment):
                break
        os.killpg(demo.pid, signal.SIGINT)
        _, errors = demo.communicate(timeout=60)
    finally:
        demo.kill()
        demo.wait()
    assert demo.returncode == 130
    assert errors == "fastps demo: interrupted\n"
