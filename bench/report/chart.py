"""The README's chart: bytes a second against size, of fastps, its alternatives and the reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

from bench.harness.units import human_bytes
from bench.peers import REFERENCES
from bench.report.words import name_of, rate

# Okabe and Ito's colours, which can be told apart with any kind of sight.
LINES = {
    "reference": ("#555555", "--", "o"), "fastps": ("#0072b2", "-", "o"), "shared_array": ("#009e73", "-", "s"),
    "torch_rpc": ("#cc79a7", "-", "v"), "ray_actor": ("#d55e00", "-", "^"),
}  # fmt: skip


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes an SVG of rows that are of one worker, one shard and one rule; the same rows give the same bytes."""
    with mpl.rc_context({"svg.hashsalt": "fastps", "svg.fonttype": "path", "font.size": 10}):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
        for axis, op in zip(axes, ("pull", "push"), strict=True):
            for subject, (color, dash, marker) in LINES.items():
                name = REFERENCES[op] if subject == "reference" else subject
                mine = sorted((r["nbytes"], r["nbytes"] / r["median_ns"] * 1e9) for r in rows
                              if r["op"] == op and r["subject"] == name)  # fmt: skip
                if mine:
                    label = name_of(name)
                    width, order = (2.6, 5) if subject == "fastps" else (1.6, 3)
                    axis.plot(*zip(*mine, strict=True), color=color, ls=dash, marker=marker, ms=4, lw=width,
                              zorder=order, label=label)  # fmt: skip
            axis.set(title=op, xscale="log", yscale="log", xlabel="size of the parameters")
            axis.xaxis.set_major_formatter(FuncFormatter(lambda size, _: human_bytes(round(size))))
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: rate(value)))
            axis.minorticks_off()
            axis.grid(color="#e2e2e2", lw=0.6)
            axis.spines[["top", "right"]].set_visible(False)
            axis.legend(frameon=False, fontsize=8.5, loc="lower right")
        axes[0].set_ylabel("one worker moves")
        figure.savefig(path, metadata={"Date": None}, facecolor="white")
        plt.close(figure)
