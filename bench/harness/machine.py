"""The machine and the commit that figures depend on."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from fastps.machine.facts import facts


def commit() -> dict[str, Any]:
    """Of this working copy; empty outside of one."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True, check=False
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    number = git("rev-parse", "HEAD")
    return {} if number is None else {"id": number, "dirty": bool(git("status", "--porcelain"))}


def processor(known: dict[str, Any]) -> str:
    """Of facts, in words."""
    return f"{known['processor']['model']}, {known['processor']['cores']} cores"


def summary() -> dict[str, str]:
    """In a few lines, for the results of a question."""
    known = facts(steal_seconds=0)
    versions = known["versions"]
    return {
        "processor": processor(known),
        "caches": ", ".join(f"{name} {size}" for name, size in known["processor"]["caches"].items()),
        "kernel": known["system"]["kernel"],
        "versions": f"Python {versions['python']}, numpy {versions['numpy']}, Ray {versions['ray']}",
        "commit": commit().get("id", "")[:7],
        "niceness": "0 for Ray's workers on both sides",
    }
