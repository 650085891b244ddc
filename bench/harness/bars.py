"""What a benchmark prints and keeps: measured ratios beside their bars, and the machine that they were measured on."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import ray

from bench.harness.times import human_bytes


@dataclass(frozen=True)
class Line:
    """One measured ratio beside its bar; a bar of 0 is none."""

    section: str
    size_bytes: int
    what: str
    measured: str
    ratio: float
    bar: float
    at_most: bool

    @property
    def met(self) -> bool:
        return not self.bar or (self.ratio <= self.bar if self.at_most else self.ratio >= self.bar)


class Report:
    """Prints lines as they come and keeps them."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def head(self, text: str) -> None:
        print(f"\n{text}")

    def add(
        self, section: str, size: int, what: str, measured: str, ratio: float, *, most: float = 0, least: float = 0
    ) -> None:
        line = Line(section, size, what, measured, ratio, most or least, bool(most))
        self.lines.append(line)
        verdict = (
            f"{'<=' if line.at_most else '>='} {line.bar:<5g} {'ok' if line.met else 'MISSED'}" if line.bar else ""
        )
        print(f"  {human_bytes(size):>7}  {what:<34} {measured:<58} {ratio:9.2f} {verdict}", flush=True)

    def end(self, path: Path | None) -> int:
        """The sum, and the file; answers what a program returns to the shell."""
        missed, barred = [line for line in self.lines if not line.met], [line for line in self.lines if line.bar]
        print(f"\n{len(barred) - len(missed)} of {len(barred)} bars met")
        if path:
            lines = [{**asdict(line), "met": line.met} for line in self.lines]
            path.write_text(json.dumps({"machine": machine(), "lines": lines}, indent=1) + "\n")
        return 1 if missed else 0


def json_file(text: str) -> Path:
    """Of a command line: where the result goes. Asked before anything is measured, which takes minutes."""
    path = Path(text)
    if path.suffix != ".json" or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(
            f"expected a name that ends in .json in a directory that can be written, got {text!r}"
        )
    return path


def check(condition: bool, what: str) -> None:
    if not condition:
        raise SystemExit(f"wrong answer: {what}; no times are reported")


def machine() -> dict[str, str]:
    """What the figures depend on."""
    model = next(
        line.split(":", 1)[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    )
    caches = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "processor": f"{model.strip()}, {len(os.sched_getaffinity(0))} cores",
        "caches": ", ".join(f"{(c / 'level').read_text().strip()}: {(c / 'size').read_text().strip()}" for c in caches),
        "kernel": os.uname().release,
        "versions": f"Python {sys.version.split()[0]}, numpy {np.__version__}, Ray {ray.__version__}",
        "commit": commit.stdout.strip(),
        "niceness": "0 for Ray's workers on both sides",
    }
