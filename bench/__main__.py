"""The command line of the benchmarks: ``python -m bench``, in a checkout of fastps.

Exit codes: 0 it worked; 1 an answer was wrong, a bar was missed, or something is slower; 2 the command could not be run
as asked; 130 interrupted. Every failure is one line on stderr.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

# Before numpy: one thread a process, also in those that Ray starts, which run at nice 0 on both sides of a comparison.
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import fastps
from bench.questions import QUESTIONS
from bench.sweep import grid as grids
from fastps.errors import FastPSError
from fastps.machine.packages import install, missing

BAD, UNUSABLE, INTERRUPTED = 1, 2, 130
absent = missing({"click": "click", "rich": "rich"})
if absent:
    print(f"bench: needs {' and '.join(absent)}: {install(*absent)}", file=sys.stderr)
    sys.exit(UNUSABLE)
else:
    import click

    from bench.harness.question import Number

NORMAL: dict[str, Any] = {
    "shards": "1,2", "sizes": "80,8K,800K,8M,80M", "workers": "1,2", "ops": ",".join(grids.OPS), "rules": "add",
    "transport": "auto", "placement": "local", "address": None, "local_cluster": 0, "peers": None, "seconds": 0.5,
}  # fmt: skip
# Without torch, which takes longer to start than everything else.
QUICK_PEERS = "memcpy,in_place,triad,shared_array,ray_actor"
PRESETS: dict[str | None, dict[str, Any]] = {
    None: NORMAL,
    "quick": NORMAL | {"sizes": "80,80K,8M", "ops": "pull,push", "peers": QUICK_PEERS, "seconds": 0.2},
    "full": NORMAL
    | {"shards": "1,2,4", "sizes": "80,8K,80K,800K,8M,80M,400M", "workers": "1,2,4", "rules": "add,adam", "seconds": 2},
}
PAGES = (".html", ".htm")
FILE = click.Path(dir_okay=False, path_type=Path)


class Commands(click.Group):
    """Loads a question when it is asked: each needs Ray and numba."""

    def resolve_command(self, context: click.Context, words: list[str]) -> Any:
        name, found, others = super().resolve_command(context, words)
        if name in QUESTIONS:
            absent = missing(QUESTIONS[name].needs)
            if absent:
                click.echo(f"bench {name}: needs {' and '.join(absent)}: {install(*absent)}", err=True)
                sys.exit(UNUSABLE)
            found = importlib.import_module(f"bench.questions.{name}").command
        return name, found, others


@click.group(cls=Commands)
@click.version_option(fastps.__version__, prog_name="bench of fastps", message="%(prog)s %(version)s")
def main() -> None:
    """Measures fastps against the alternatives, and against the same work without sharing."""


for name, about in QUESTIONS.items():
    main.add_command(click.Command(name, short_help=about.summary))


def fail(message: object, code: int) -> NoReturn:
    click.echo(f"bench {click.get_current_context().info_name}: {message}", err=True)
    sys.exit(code)


def require_directory(option: str, path: Path) -> None:
    if not os.access(path.parent, os.W_OK):
        fail(f"{option}: {path.parent} is not a writable directory", UNUSABLE)


def require_new(option: str, path: Path) -> None:
    if path.exists():
        fail(f"{option}: {path} is there already; take another name, or remove it first", UNUSABLE)


@main.command()
@click.option("--shards", help=f"counts ({NORMAL['shards']})")
@click.option("--sizes", help=f"of the parameters, such as 8K or 2GiB ({NORMAL['sizes']})")
@click.option("--workers", help=f"counts ({NORMAL['workers']})")
@click.option("--ops", help=f"some of {','.join(grids.OPS)}")
@click.option("--rules", help=f"some of {','.join(grids.RULES)} ({NORMAL['rules']})")
@click.option("--transport", help="some of auto,ray; ray: even where shared memory is possible (auto)")
@click.option(
    "--placement",
    help="some of local: all on one node; spread: over all; remote: workers away from shards (local)",
)
@click.option("--address", help="of a Ray cluster to run on; auto: the one that runs here")
@click.option("--local-cluster", type=click.IntRange(2, 16), help="start so many raylets here as the cluster")
@click.option("--peers", help="some of those in bench/peers, or '' (all that are installed)")
@click.option("--seconds", type=Number(0.01, 600), help=f"of each operation ({NORMAL['seconds']:g})")
@click.option("--quick", is_flag=True, help="few points, less than two minutes")
@click.option("--full", is_flag=True, help="all sizes, up to four workers, two rules")
@click.option("-o", "--output", type=FILE, help="a Parquet file (sweep-DATE.parquet)")
@click.option("--resume", is_flag=True, help="keep the rows and the grid of --output, and measure the rest")
def sweep(quick: bool, full: bool, output: Path | None, resume: bool, **given: Any) -> None:
    """Measures every combination of shards, sizes and workers. Ctrl-C keeps what was measured."""
    if quick and full:
        fail("--quick and --full exclude each other", UNUSABLE)
    preset = "quick" if quick else "full" if full else None
    if resume and output is None:
        fail("--resume: expected --output FILE, the file to go on with", UNUSABLE)
    output = output or Path(f"sweep-{time.strftime('%Y%m%d-%H%M%S')}.parquet")
    require_directory("--output", output)
    try:
        from ray.exceptions import RayError

        from bench.sweep import program, run

        kept = program.kept_of(output, resume)
        chosen = {name: value for name, value in given.items() if value is not None}
        options = (kept.about["options"] if kept and preset is None else PRESETS[preset]) | chosen
        if options["address"] and options["local_cluster"]:
            fail("--address and --local-cluster exclude each other", UNUSABLE)
        grid, names = program.grid_of(options), program.peers_of(options["peers"])
        if kept:
            program.require_same(kept, options, names)
    except (ValueError, OSError) as error:
        fail(one_line(error), UNUSABLE)
    except KeyboardInterrupt:
        fail("interrupted; nothing was measured yet", INTERRUPTED)
    try:
        beside = program.program(grid, names, options, output, kept)
    except (ValueError, ConnectionError) as error:
        fail(f"{one_line(error)}{so_far(output)}", UNUSABLE)
    except RayError as error:
        fail(f"a worker failed: {str(error).strip().splitlines()[-1]}{so_far(output)}", BAD)
    except (run.WrongAnswer, run.StuckError, FastPSError) as error:
        fail(f"{one_line(error)}{so_far(output)}", BAD)
    except KeyboardInterrupt:
        fail(f"interrupted{so_far(output) or '; nothing was measured yet'}", INTERRUPTED)
    if beside:
        click.echo(f"{output} and {beside}")


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def so_far(output: Path) -> str:
    """How to continue a sweep that ended early; empty where nothing was measured."""
    if not output.exists():
        return ""
    return f"; {output} has what was measured: go on with python -m bench sweep --resume -o {shlex.quote(str(output))}"


ANY_PATH = click.Path(path_type=Path)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="as JSON")


@main.command()
@click.argument("before", type=ANY_PATH)
@click.argument("after", type=ANY_PATH)
@click.option("--margin", type=Number(0.001, 10), default=0.05, help="ignore smaller differences (0.05)")
@click.option("--confidence", type=Number(0.5, 0.9999), default=0.95, help="of all verdicts together (0.95)")
@AS_JSON
def compare(before: Path, after: Path, margin: float, confidence: float, as_json: bool) -> None:
    """Is AFTER slower than BEFORE? Each is a file of `sweep`, or a directory of them, taken together.

    Exit code 1 when something is slower.
    """
    from bench.comparison import program
    from bench.comparison.statistics import ComparisonError
    from bench.sweep.results import ResultsError

    try:
        slower = program.compare(before, after, margin, confidence, as_json)
    except (ComparisonError, ResultsError) as error:
        fail(error, UNUSABLE)
    sys.exit(BAD if slower else 0)


@main.command()
@click.argument("directory", type=ANY_PATH)
@AS_JSON
def history(directory: Path, as_json: bool) -> None:
    """The trend of the results in DIRECTORY that were measured on the machine of the newest."""
    from bench.comparison import program
    from bench.sweep.results import ResultsError

    try:
        program.history(directory, as_json)
    except ResultsError as error:
        fail(error, UNUSABLE)


@main.command()
@click.argument("results", type=ANY_PATH)
@click.option(
    "-o", "--output", type=FILE, default=Path("report.html"), help="a page that needs no network (report.html)"
)
def report(results: Path, output: Path) -> None:
    """A page on a file of `sweep`: throughput, latency, scaling, the ratio to the reference, all rows, the machine."""
    if output.suffix not in PAGES:
        fail(f"--output: expected a name that ends in {' or '.join(PAGES)}, got {output}", UNUSABLE)
    require_directory("--output", output)
    require_new("--output", output)
    absent = missing({"plotly": "plotly"})
    if absent:
        fail(f"needs {' and '.join(absent)}: {install(*absent)}", UNUSABLE)
    from bench.report import page
    from bench.sweep.results import ResultsError, load

    try:
        page.write(load(results), output)
    except (ResultsError, OSError) as error:
        fail(error, UNUSABLE)
    click.echo(output)


@main.command()
def readme() -> None:
    """Writes the README's chart and figures, and the pages in bench/results, from the results there."""
    from bench.report import readme as pages

    pages.write()


def command(arguments: list[str] | None = None) -> None:
    """Runs the arguments of the process, or others. Wrong usage is one line, too."""
    try:
        main(arguments, standalone_mode=False)
    except click.Abort:
        sys.exit(INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(UNUSABLE)
    except click.UsageError as error:
        name = error.ctx.info_name if error.ctx and error.ctx.parent else ""
        click.echo(f"bench{f' {name}' if name else ''}: {' '.join(error.format_message().split())}", err=True)
        sys.exit(UNUSABLE)


if __name__ == "__main__":
    command()
