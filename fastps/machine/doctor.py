"""Judges the facts of a machine: what harms latency or measurements, and commands that fix it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fastps.messages import binary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Verdict = Literal["good", "poor", "unknown"]

SHM_SHARE = 0.25  # of memory, the least size of /dev/shm: Ray's object store takes 0.3 of memory
BUSY_SHARE = 0.1
STEAL_SHARE = 0.01
WAITING_SHARE = 0.05
FREE_SHARE = 0.25
SWAP_FREE_SHARE = 0.9
OPEN_FILES = 4096


@dataclass(frozen=True)
class Finding:
    """The verdict on one property of the machine.

    Attributes
    ----------
    name : of the property
    verdict : "good", "poor", or "unknown" where the kernel does not report it
    found : in words
    why : what it harms, when it is poor
    command : a shell command that fixes it, if there is one; it may need root
    """

    name: str
    verdict: Verdict
    found: str
    why: str = ""
    command: str = ""


def examine(facts: Mapping[str, Any]) -> list[Finding]:
    """Findings on what `machine.facts` reports, in order of importance."""
    return list(_findings(facts["processor"], facts["scheduling"], facts["memory"], facts["system"]))


def _judge(name: str, good: bool | None, found: str, why: str, command: str = "") -> Finding:
    """`good` is None where it is unknown."""
    if good is None:
        return Finding(name, "unknown", found)
    return Finding(name, "good", found) if good else Finding(name, "poor", found, why, command)


def _findings(
    processor: Mapping[str, Any], scheduling: Mapping[str, Any], memory: Mapping[str, Any], system: Mapping[str, Any]
) -> Iterator[Finding]:
    cores = len(processor["affinity"])
    yield _governor(processor)
    yield _judge(
        "cores", cores > 1 and (processor["quota_cores"] or cores) >= cores, _cores(processor),
        "workers share a core, or are stopped when a quota is used up: p99 becomes a time slice (some ms)",
        "start with all CPUs: taskset -pc 0-$(($(nproc --all)-1)) $$; docker run without --cpus, with --cpuset-cpus=",
    )  # fmt: skip
    yield _judge(
        "load", None if scheduling["busy_share"] is None else scheduling["busy_share"] <= BUSY_SHARE,
        f"CPUs {_percent(scheduling['busy_share'])} busy, load {scheduling['load']}",
        "other programs use cores and caches: medians drift, tails grow", "top -o %CPU",
    )  # fmt: skip
    waiting = scheduling["waiting_share"]
    yield _judge(
        "oversubscription", None if waiting is None else waiting <= WAITING_SHARE,
        f"tasks wait for a core in {_percent(waiting)} of the time",
        "more threads are ready to run than there are cores: the holder of a lock may wait for a core",
        "export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1  # and no more workers than cores; see who runs: top -H",
    )  # fmt: skip
    yield _judge(
        "steal", None if scheduling["steal_share"] is None else scheduling["steal_share"] <= STEAL_SHARE,
        f"the host takes {_percent(scheduling['steal_share'])}",
        "the host runs other virtual machines on these cores: tails are not caused by this program",
    )  # fmt: skip
    yield _judge(
        "niceness", scheduling["niceness"] <= 0, str(scheduling["niceness"]),
        "this process gives way to all others", "sudo renice -n 0 -p $$",
    )  # fmt: skip
    yield _judge(
        "Ray's workers", scheduling["ray_worker_niceness"] <= 0, f"niceness {scheduling['ray_worker_niceness']}",
        "tasks and actors give way to all other processes, the driver included",
        "export RAY_worker_niceness=0  # before ray.init or ray start",
    )  # fmt: skip
    yield from _memory(memory)
    clock = processor["clocksource"]
    yield _judge(
        "clock source", None if clock is None else clock in ("tsc", "arch_sys_counter"), str(clock),
        "reading the time is a system call: single operations cannot be timed",
        "echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource",
    )  # fmt: skip
    yield _judge(
        "compiler", system["compiler"] is not None, system["compiler"] or "none",
        "fastps cannot be built from source here; update rules need none", "sudo apt-get install gcc",
    )  # fmt: skip
    yield _judge(
        "open files", system["open_files"] >= OPEN_FILES, f"at most {system['open_files']:,} a process",
        "Ray's processes hold many sockets and files", f"ulimit -n {OPEN_FILES}",
    )  # fmt: skip


def _governor(processor: Mapping[str, Any]) -> Finding:
    governor = processor["governor"]
    return _judge(
        "governor", None if governor is None else governor == "performance",
        governor or "not reported (virtual machine)",
        "the clock frequency rises some ms after work begins: short operations run at the low one",
        "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    )  # fmt: skip


def _cores(processor: Mapping[str, Any]) -> str:
    text = f"{len(processor['affinity'])} of {processor['cores']}"
    if processor["quota_cores"] is not None:
        text += f", a quota of {processor['quota_cores']:g}"
    if (processor["threads_a_core"] or 1) > 1:
        text += f", {processor['threads_a_core']} threads a core"
    return text


def _memory(memory: Mapping[str, Any]) -> Iterator[Finding]:
    total, available, limit, size = memory["total"], memory["available"], memory["limit"], memory["shm_size"]
    room = total if total is None or limit is None else min(total, limit)
    yield _judge(
        "memory", None if room is None or available is None else available >= FREE_SHARE * room,
        f"{_bytes(available)} of {_bytes(total)} available"
        + ("" if limit is None else f", a limit of {_bytes(limit)}"),
        "the kernel kills processes when parameters grow", "ps aux --sort=-rss | head",
    )  # fmt: skip
    swap = memory["swap_total"] or 0
    yield _judge(
        "swap", memory["swap_free"] is None or memory["swap_free"] >= SWAP_FREE_SHARE * swap,
        f"{_bytes(memory['swap_free'])} of {_bytes(swap)} free" if swap else "none",
        "shared memory is swapped out like any other", "sudo swapoff -a && sudo swapon -a",
    )  # fmt: skip
    wanted = max(1, round((room or 0) * 0.35 / 2**30))
    yield _judge(
        "/dev/shm", None if room is None or size is None else size >= SHM_SHARE * room,
        f"{_bytes(memory['shm_free'])} of {_bytes(size)} free",
        "Ray's object store is in it, or in /tmp when it is too small; parameters of fastps are not",
        f"docker run --shm-size={wanted}g; or sudo mount -o remount,size=50% /dev/shm",
    )  # fmt: skip
    huge = memory["huge_pages"]
    yield _judge(
        "huge pages", None if huge is None else huge in ("madvise", "always"), str(huge),
        "arrays of numpy and rows of tables have small pages: random access waits for page tables",
        "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
    )  # fmt: skip
    shared = memory["huge_pages_shared"]
    yield _judge(
        "huge pages of shared memory", None if shared is None else shared not in ("never", "deny"), str(shared),
        "parameters in shared memory have small pages; tables have huge ones anyway (Linux 6.1)",
        "echo within_size | sudo tee /sys/kernel/mm/transparent_hugepage/shmem_enabled",
    )  # fmt: skip
    balancing = memory["numa_balancing"]
    yield _judge(
        "NUMA balancing", None if balancing is None else balancing == 0, "off" if balancing == 0 else "on",
        "the kernel unmaps pages to see who uses them: page faults during operations",
        "echo 0 | sudo tee /proc/sys/kernel/numa_balancing",
    )  # fmt: skip


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.1%}"


def _bytes(count: int | None) -> str:
    return "unknown" if count is None else binary(count)
