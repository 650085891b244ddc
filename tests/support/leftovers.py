"""What tests may leave behind: processes, arenas, names in shared memory. Only what this run has made counts."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from tests.support.run import RUN

RAYS_PROGRAMS = str(Path(importlib.util.find_spec("ray").origin).parent) + os.sep
SHARED = "FASTPS_TEST_SHARED_RAY"  # in the environment of the processes of Rays that modules share


def started_here(shared: bool = False) -> dict[int, str]:
    """The live processes of this run besides this one; without Ray's own of a Ray that modules share, and without idle
    workers and agents of any, unless they are asked for."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environment = (directory / "environ").read_bytes()
            if int(directory.name) != os.getpid() and RUN.encode() in environment:
                state = (directory / "stat").read_text().rpartition(")")[2].split()[0]
                command = (directory / "cmdline").read_text().replace("\0", " ")
                # A process that gives itself a title may write it over the end of what it has inherited.
                mark = SHARED.encode() in environment or command.startswith("ray::")
                if state != "Z" and (shared or not mark or not is_rays_own(command)):
                    found[int(directory.name)] = command[:120]
        except OSError:
            continue
    return found


def is_agent(command: str) -> bool:
    """Ray's own agents wait for a dead cluster to come back, a minute long."""
    return command.startswith(("ray::DashboardAgent", "ray::RuntimeEnvAgent"))


def is_rays_own(command: str) -> bool:
    """Whether a process runs no actor, no task and nothing that these have started."""
    return command.startswith("ray::IDLE") or is_agent(command) or RAYS_PROGRAMS in command


def own_arenas() -> list[str]:
    """File descriptors and mappings of arenas in this process."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    maps = Path("/proc/self/maps").read_text().splitlines()
    return [link for link in links if "memfd:fastps" in link] + [line for line in maps if "memfd:fastps" in line]


def names_in_shared_memory() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if "fastps" in name.lower()}


NAMES_BEFORE = names_in_shared_memory()


def shm_entries() -> list[str]:
    """Names in shared memory that came since this run began, without those that a process of another run has mapped."""
    new = names_in_shared_memory() - NAMES_BEFORE
    return sorted(new - set().union(*map(mapped_elsewhere, Path("/proc").glob("[0-9]*")))) if new else []


def mapped_elsewhere(directory: Path) -> set[str]:
    """The names in shared memory that a process has mapped, if it is of another run."""
    try:
        if RUN.encode() in (directory / "environ").read_bytes() or int(directory.name) == os.getpid():
            return set()
        lines = (directory / "maps").read_text().splitlines()
    except OSError:
        return set()
    return {line.rpartition("/dev/shm/")[2].split(" ")[0] for line in lines if "/dev/shm/" in line}
