"""``fastps checkpoint export``."""

from __future__ import annotations

from pathlib import Path

import click

from fastps.cli import options
from fastps.cli.columns import printable
from fastps.messages import few

SAFETENSORS, TORCH, PARQUET = "safetensors", "pt", "parquet"
FORMATS = {".safetensors": SAFETENSORS, ".pt": TORCH, ".pth": TORCH, ".parquet": PARQUET}


@click.command("export", short_help="Write the arrays or a table of a checkpoint to a file of another format.")
@click.argument("path", type=options.path)
@click.option(
    "-o", "--output", type=options.path, required=True, metavar="FILE", help="What to write; it must not exist."
)
@click.option(
    "--format",
    "kind",
    type=options.one_of(SAFETENSORS, TORCH, PARQUET),
    metavar="FORMAT",
    help=f"{SAFETENSORS}, {TORCH} (a state_dict of torch) or {PARQUET} (the rows of a table).",
    show_default="by the name of the file",
)
@click.option("--table", metavar="NAME", help="The table whose rows are written; needed if there are several.")
@click.option("--slots", is_flag=True, help="Also the slots: slots/SLOT/NAME, or a column for each slot of a table.")
@click.option("--stored", is_flag=True, help="Half-precision arrays as the float32 values that the server has.")
def command(path: Path, output: Path, kind: str | None, table: str | None, slots: bool, stored: bool) -> None:
    """Verifies the checkpoint, and writes its arrays, under their own names, as one file of safetensors or a state_dict
    of torch, which torch.load reads with weights_only=True; or the rows of a table as Parquet. Half-precision arrays
    have the type in which they were given.
    """
    kind = kind or FORMATS.get(output.suffix)
    if kind is None:
        raise click.UsageError(
            f"-o: expected a file that ends in {', '.join(FORMATS)}, got {str(output)!r}, or --format"
        )
    if kind == PARQUET and stored:
        raise click.UsageError("--stored is for arrays, not for the rows of a table")
    if kind != PARQUET and table is not None:
        raise click.UsageError(f"--table goes with {PARQUET}, not with {kind}")
    if kind == TORCH:
        options.require({"torch": "torch"})
    from fastps.checkpoint.export import export_arrays, export_table, named_arrays, require_free, write_safetensors
    from fastps.checkpoint.load import load
    from fastps.checkpoint.series import checkpoint_at

    require_free(output)  # before much is read
    found = load(checkpoint_at(path), True)
    if kind == PARQUET:
        rows = export_table(output, found, table, slots)
        print(printable(f"{output}: {rows:,} rows"))
        return
    named = named_arrays(found.state, stored, slots)
    if kind == TORCH:
        from fastps.checkpoint.state_dict import write_state_dict as write
    else:
        write = write_safetensors
    export_arrays(output, named, write)
    omitted = f"; omitted, as their types are unknown to others: {few(named.omitted)}" if named.omitted else ""
    print(printable(f"{output}: {len(named.arrays):,} arrays{omitted}"))
