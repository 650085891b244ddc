"""The command line: ``fastps demo``, also as ``python -m fastps demo``.

Exit codes: 0 it worked; 1 it ran, and the result is not what it should be; 2 the command could not be run as asked;
130 interrupted. Every failure is one line on stderr.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from fastps.errors import FastPSError

FAILED, UNUSABLE, INTERRUPTED = 1, 2, 130

# What the extra `fastps[demo]` installs, under the names that are imported.
DEMO_NEEDS = {"rich": "rich", "sklearn": "scikit-learn"}


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
    missing = [package for module, package in DEMO_NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        return _say(prog, f"needs {' and '.join(missing)}: pip install 'fastps[demo]'", UNUSABLE)
    try:
        # Late, so that --help and wrong options load neither Ray nor scikit-learn.
        run = importlib.import_module("fastps.demo.run")
        settings = run.Settings(options.steps, options.workers, options.shards, options.seed)
        problem = run.demo(settings, options.address)
    except KeyboardInterrupt:
        return _say(prog, "interrupted", INTERRUPTED)
    except ConnectionError as error:  # Ray's, and ShardDiedError
        return _say(prog, str(error).strip().split("\n", 1)[0], FAILED)
    except FastPSError as error:
        return _say(prog, str(error), FAILED)
    return _say(prog, problem, FAILED) if problem else 0


def _say(prog: str, message: str, code: int) -> int:
    print(f"{prog}: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="fastps", description="A parameter server as a Python library.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    demo = commands.add_parser(
        "demo",
        help="train on real data, then the same on a plain Ray actor, and compare",
        description="Trains a small network on the handwritten digits of scikit-learn, asynchronously, with fastps; "
        "then the same training on a plain Ray actor; then compares. Needs the extra: pip install 'fastps[demo]'.",
    )
    demo.add_argument(
        "--steps", type=_whole(1, 10_000_000), default=6000, help="training steps of each worker (%(default)s)"
    )
    demo.add_argument("--workers", type=_whole(1, 64), default=2, help="worker processes (%(default)s)")
    demo.add_argument("--shards", type=_whole(1, 64), default=2, help="shards that hold the parameters (%(default)s)")
    demo.add_argument(
        "--seed", type=_whole(0, 2**32 - 1), default=1, help="of split, weights and batches (%(default)s)"
    )
    demo.add_argument(
        "--address", type=_cluster, help="HOST:PORT of a running Ray cluster; otherwise RAY_ADDRESS, or a new one"
    )
    return parser


def _cluster(text: str) -> str:
    """Asks before Ray does, which waits for minutes."""
    host, _, port = text.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except (OSError, ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"expected HOST:PORT of a running Ray cluster, got {text!r} ({error})"
        ) from None
    return text


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
