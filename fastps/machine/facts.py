"""What affects performance on this machine, as the kernel reports it. Facts only; `doctor` judges them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import shutil
import time
from pathlib import Path
from typing import Any

PACKAGES = ("fastps", "ray", "numpy", "numba", "llvmlite", "pyarrow", "torch")
RAY_NICENESS = 15  # what Ray gives its workers unless RAY_worker_niceness says otherwise
STEAL_SECONDS = 0.2


def facts(root: Path = Path("/"), steal_seconds: float = STEAL_SECONDS) -> dict[str, Any]:
    """The machine as nested dicts of numbers, texts and None, for JSON.

    Parameters
    ----------
    root : the directory of proc, sys and dev
    steal_seconds : how long to observe the CPUs

    None stands for what the kernel does not report. Sizes are bytes. Cost: `steal_seconds`.
    """
    return {
        "processor": _processor(root),
        "scheduling": _scheduling(root, steal_seconds),
        "memory": _memory(root),
        "system": _system(root),
        "versions": versions(),
    }


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that affect performance; None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def text(path: Path) -> str | None:
    """One line of a small file, or None."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def number(path: Path) -> int | None:
    try:
        return int(text(path) or "")
    except ValueError:
        return None


def chosen(path: Path) -> str | None:
    """The word in brackets of a file such as "always [madvise] never"."""
    words = (text(path) or "").split()
    return next((word.strip("[]") for word in words if word.startswith("[")), None)


def _table(path: Path) -> dict[str, str]:
    """Lines of "name: value"; the first of those with the same name."""
    found: dict[str, str] = {}
    for line in (text(path) or "").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found


def _processor(root: Path) -> dict[str, Any]:
    cpuinfo = _table(root / "proc/cpuinfo")
    cpu = root / "sys/devices/system/cpu"
    caches = {}
    for index in sorted((cpu / "cpu0/cache").glob("index*")):
        kind = {"Data": "d", "Instruction": "i"}.get(text(index / "type") or "", "")
        caches[f"L{text(index / 'level')}{kind}"] = text(index / "size")
    return {
        "model": cpuinfo.get("model name") or cpuinfo.get("CPU implementer"),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)),
        "quota_cores": _quota(root),
        "threads_a_core": _threads_a_core(cpu),
        "numa_nodes": len(list((root / "sys/devices/system/node").glob("node[0-9]*"))) or None,
        "caches": caches,
        "governor": text(cpu / "cpu0/cpufreq/scaling_governor"),
        "boost": _boost(cpu),
        "clocksource": text(root / "sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "virtual": "hypervisor" in cpuinfo.get("flags", "").split(),
    }


def _threads_a_core(cpu: Path) -> int | None:
    siblings = text(cpu / "cpu0/topology/thread_siblings_list")
    if siblings is None:
        return None
    count = 0
    for part in siblings.split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


def _boost(cpu: Path) -> bool | None:
    turned_off = number(cpu / "intel_pstate/no_turbo")
    if turned_off is not None:
        return turned_off == 0
    boost = number(cpu / "cpufreq/boost")
    return None if boost is None else boost == 1


def groups(root: Path, name: str) -> list[str]:
    """The contents of the file of this name in this process's control group and in all above it (version 2)."""
    path = next(
        (line.split("::", 1)[1] for line in (text(root / "proc/self/cgroup") or "").splitlines() if "::" in line), "/"
    )
    top = root / "sys/fs/cgroup"
    group = top / path.strip("/")
    found = [text(at / name) for at in (group, *group.parents) if at == top or top in at.parents]
    return [value for value in found if value]


def _quota(root: Path) -> float | None:
    """Cores that the control groups grant; None: as many as there are."""
    least = None
    for value in groups(root, "cpu.max"):
        quota, _, period = value.partition(" ")
        if quota != "max":
            granted = int(quota) / int(period or 100_000)
            least = granted if least is None else min(least, granted)
    return least


def _scheduling(root: Path, seconds: float) -> dict[str, Any]:
    before = _cpu_times(root)
    time.sleep(seconds)
    spent = [now - then for now, then in zip(_cpu_times(root), before, strict=False)]
    whole = float(sum(spent)) or 1.0
    load = (text(root / "proc/loadavg") or "").split()
    return {
        "load": float(load[0]) if load else None,
        "busy_share": round(1 - (spent[3] + spent[4]) / whole, 4) if len(spent) > 4 else None,
        "steal_share": round(spent[7] / whole, 4) if len(spent) > 7 else None,
        "waiting_share": _waiting_share(root),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "ray_worker_niceness": int(os.environ.get("RAY_worker_niceness", RAY_NICENESS)),  # noqa: SIM112
    }


def _waiting_share(root: Path) -> float | None:
    """The share of the last 10 seconds in which some runnable task waited for a CPU."""
    words = (text(root / "proc/pressure/cpu") or "").split()
    averages = [word.removeprefix("avg10=") for word in words if word.startswith("avg10=")]
    return round(float(averages[0]) / 100, 4) if averages else None


def _cpu_times(root: Path) -> list[int]:
    """Of all CPUs, in ticks: user, nice, system, idle, iowait, irq, softirq, steal."""
    lines = (text(root / "proc/stat") or "").splitlines()
    return [int(word) for word in lines[0].split()[1:9]] if lines else []


def _memory(root: Path) -> dict[str, Any]:
    meminfo = _table(root / "proc/meminfo")

    def kilobytes(name: str) -> int | None:
        return int(meminfo[name].split()[0]) * 1024 if name in meminfo else None

    huge = root / "sys/kernel/mm/transparent_hugepage"
    limits = [int(limit) for limit in groups(root, "memory.max") if limit != "max"]
    try:
        shared = os.statvfs(root / "dev/shm")
        sizes = shared.f_blocks * shared.f_frsize, shared.f_bavail * shared.f_frsize
    except OSError:
        sizes = None
    return {
        "total": kilobytes("MemTotal"),
        "available": kilobytes("MemAvailable"),
        "limit": min(limits, default=None),
        "swap_total": kilobytes("SwapTotal"),
        "swap_free": kilobytes("SwapFree"),
        "shm_size": sizes and sizes[0],
        "shm_free": sizes and sizes[1],
        "huge_pages": chosen(huge / "enabled"),
        "huge_pages_shared": chosen(huge / "shmem_enabled"),
        "huge_page_bytes": number(huge / "hpage_pmd_size"),
        "numa_balancing": number(root / "proc/sys/kernel/numa_balancing"),
    }


def _system(root: Path) -> dict[str, Any]:
    release = _table_of_words(text(root / "etc/os-release") or "")
    return {
        "kernel": platform.release(),
        "distribution": release.get("PRETTY_NAME"),
        "container": _container(root),
        "compiler": _compiler(),
        "ptrace_scope": number(root / "proc/sys/kernel/yama/ptrace_scope"),
        "open_files": _open_files(),
    }


def _compiler() -> str | None:
    """Its name without the path, which may identify a user."""
    name = os.environ.get("CC", "cc").split()[0]
    return os.path.basename(name) if shutil.which(name) else None


def _table_of_words(content: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in content.splitlines())
    return {name: value.strip('"') for name, equals, value in pairs if equals}


def _container(root: Path) -> str | None:
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    if "container" in os.environ:
        return os.environ["container"]  # noqa: SIM112
    return "kubernetes" if "KUBERNETES_SERVICE_HOST" in os.environ else None


def _open_files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
