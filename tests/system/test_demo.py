"""`fastps demo` as a user runs it: in a process of its own, with a Ray of its own, where that makes a difference."""

import os
import signal
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from fastps import cli
from tests.support import programs
from tests.support.waiting import GUARD_SECONDS

COMMAND = [sys.executable, "-m", "fastps", "demo"]


@pytest.fixture
def demo(ray_local, capsys, monkeypatch):
    """Runs the demo in this process, in its Ray: (exit code, output, errors)."""
    monkeypatch.setenv("COLUMNS", programs.ENVIRONMENT["COLUMNS"])
    return lambda *options: (cli.main(["demo", *map(str, options)]), *capsys.readouterr())


def test_the_demo_trains_on_both_sides_and_compares():
    done = programs.run(COMMAND, "--steps", "800", "--seed", "3")
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


def test_too_few_steps_end_with_one_line_and_code_1(demo):
    code, _, errors = demo("--steps", "1", "--workers", "1", "--shards", "1")
    assert code == 1
    assert errors.count("\n") == 1
    assert "test accuracy below 95%" in errors


@pytest.mark.parametrize(
    "options",
    [
        ("--steps", "0"),
        ("--workers", "many"),
        ("--shards", "-1"),
        ("--unknown",),
        ("--address", "127.0.0.1:1"),
        ("--consistency", "async,spp"),
        ("--consistency", ""),
        ("--plot", "/nowhere/page.html", "--consistency", "all"),
        ("--straggler", "0.5", "--consistency", "all"),
        ("--steps", "10", "--consistency", "all"),
        ("--workers", "1", "--consistency", "all"),
        ("--seconds", "3"),
    ],
)
def test_a_wrong_option_is_one_line_and_code_2(options, capsys):
    code, (out, errors) = cli.main(["demo", *options]), capsys.readouterr()
    assert code == 2
    assert errors.count("\n") == 1
    assert options[0] in errors
    assert out == ""


def test_an_unknown_setting_is_told_with_those_that_there_are(capsys):
    assert cli.main(["demo", "--consistency", "async,spp"]) == 2
    told = "expected some of async, ssp, bsp, backup, local, separated by commas, or all; got 'spp'"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "package", "options"),
    [
        ("sklearn", "scikit-learn", []),
        ("rich", "rich", []),
        ("plotly", "plotly", ["--consistency", "all", "--plot", "page.html"]),
    ],
)
def test_a_missing_extra_is_one_line_and_code_2(monkeypatch, capsys, module, package, options):
    monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(["demo", *options]) == 2
    errors = capsys.readouterr().err
    assert errors == f"fastps demo: needs {package}: {sys.executable} -m pip install {package}\n"


def test_the_command_line_loads_neither_ray_nor_numba():
    check = "import sys, fastps.cli; sys.exit(bool({'ray', 'numba', 'pyarrow', 'rich', 'sklearn'} & set(sys.modules)))"
    assert programs.run([sys.executable, "-c", check]).returncode == 0


class Loads(HTMLParser):
    """What a page loads: its addresses, and its style sheets. Scripts are no tags to the parser."""

    def __init__(self, page):
        super().__init__()
        self.found, self.styles, self._tag = [], "", ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self._tag = tag
        self.found += [value for name, value in attributes if name in ("src", "href", "data", "srcset")]

    def handle_data(self, data):
        self.styles += data if self._tag == "style" else ""


SETTINGS = ["Async()", "SSP(2)", "BSP()", "BSP(backup=1)", "LocalSGD(8)"]


def test_the_settings_of_consistency_are_compared_and_plotted(demo, tmp_path):
    page = tmp_path / "page.html"
    options = ["--consistency", "all", "--seconds", "1", "--straggler", "20", "--seed", "3", "--shards", "1"]
    code, out, errors = demo(*options, "--plot", page)
    assert code == 0, out + errors
    lines = out.splitlines()

    def row(name):
        return next(line for line in lines if line.strip().startswith(name)).strip().removeprefix(name).split()

    assert [float(cell) for cell in row("learning rate")] == [0.1, 0.1, 0.4, 0.3, 0.4]
    free, ssp, bsp, backup, local = (float(cell) for cell in row("steps/s of a fast worker"))
    # The straggler makes at most 16 steps a second, on any machine. Who waits for it is at most a round of 8 ahead.
    assert max(ssp, bsp, local) < 30
    assert min(free, backup) > 0
    made, counted, dropped = (
        [int(cell) for cell in row(name)] for name in ("straggler: steps", "that counted", "dropped gradients")
    )
    assert counted[:3] == made[:3]
    assert counted[3] <= made[3] <= counted[3] + dropped[3]
    assert dropped[:3] == [0, 0, 0] == dropped[4:] * 3
    before = 2.6  # the logarithm of ten classes, and the chance of the weights
    assert all(float(cell) < before for cell in row("loss after 1 s"))

    text = page.read_text(encoding="utf-8")
    assert all(name in text for name in SETTINGS)
    assert "[s]" in text
    loads = Loads(text)
    assert loads.found == []
    assert "font:" in loads.styles
    assert "url(" not in loads.styles
    assert "@import" not in loads.styles


@pytest.mark.parametrize(
    ("moment", "options", "own"),
    [
        ("Starting Ray", ["--steps", "20000"], True),
        # In the middle of it: a quarter is told of first.
        ("Ray actor", ["--steps", "4000", "--workers", "1", "--shards", "1"], False),
        ("SSP(2)", ["--consistency", "ssp", "--seconds", "16", "--workers", "2", "--shards", "1"], False),
    ],
)
def test_an_interrupt_ends_with_code_130_and_without_a_traceback(one_node, moment, options, own):
    # As a terminal does it: to the whole process group. What is left behind is checked after each module.
    demo = subprocess.Popen(
        [*COMMAND, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**programs.ENVIRONMENT, "RAY_ADDRESS": "local" if own else one_node.address, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
        # A shell starts what runs in its background with interrupts ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for line in demo.stdout:
            if line.startswith(moment):
                break
        os.killpg(demo.pid, signal.SIGINT)
        _, errors = demo.communicate(timeout=GUARD_SECONDS)
    finally:
        demo.kill()
        demo.wait()
    assert demo.returncode == 130
    assert errors == "fastps demo: interrupted\n"
