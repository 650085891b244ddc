"""What a question prints and keeps: measured ratios beside their bars."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.harness import machine
from bench.harness.units import human_bytes


@dataclass(frozen=True)
class Line:
    """One measured ratio beside its bar; 0: there is no bar."""

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
        """Prints how many bars were met, and writes the file. Returns the exit code."""
        missed, barred = [line for line in self.lines if not line.met], [line for line in self.lines if line.bar]
        print(f"\n{len(barred) - len(missed)} of {len(barred)} bars met")
        if path:
            lines = [{**asdict(line), "met": line.met} for line in self.lines]
            path.write_text(json.dumps({"machine": machine.summary(), "lines": lines}, indent=1) + "\n")
        return 1 if missed else 0


def check(condition: bool, what: str) -> None:
    if not condition:
        raise SystemExit(f"wrong answer: {what}; no times are reported")
