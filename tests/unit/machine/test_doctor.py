"""What the doctor makes of a machine."""

import copy

import pytest

from fastps.machine.doctor import examine

GOOD = {
    "processor": {
        "model": "x", "cores": 8, "affinity": list(range(8)), "quota_cores": None, "threads_a_core": 2,
        "governor": "performance", "boost": True, "clocksource": "tsc", "virtual": False,
    },
    "scheduling": {
        "load": 0.1, "busy_share": 0.01, "steal_share": 0.0, "waiting_share": 0.01, "niceness": 0,
        "ray_worker_niceness": 0,
    },
    "memory": {
        "total": 64 << 30, "available": 60 << 30, "limit": None, "swap_total": 0, "swap_free": 0, "shm_size": 32 << 30,
        "shm_free": 31 << 30, "huge_pages": "madvise", "huge_pages_shared": "within_size", "numa_balancing": 0,
    },
    "system": {"compiler": "cc", "open_files": 65536, "container": None},
    "versions": {},
}  # fmt: skip

# (section, fact, a poor value, the finding that it makes poor, what is in the finding)
POOR = [
    ("processor", "governor", "powersave", "governor", "powersave"),
    ("processor", "affinity", [3], "cores", "1 of 8"),
    ("processor", "quota_cores", 1.5, "cores", "a quota of 1.5"),
    ("processor", "clocksource", "hpet", "clock source", "hpet"),
    ("scheduling", "busy_share", 0.6, "load", "60.0% busy"),
    ("scheduling", "steal_share", 0.07, "steal", "7.0%"),
    ("scheduling", "waiting_share", 0.3, "oversubscription", "30.0%"),
    ("scheduling", "niceness", 5, "niceness", "5"),
    ("scheduling", "ray_worker_niceness", 15, "Ray's workers", "15"),
    ("memory", "available", 2 << 30, "memory", "2 GiB of 64 GiB"),
    ("memory", "swap_total", 8 << 30, "swap", "0 B of 8 GiB free"),
    ("memory", "shm_size", 64 << 20, "/dev/shm", "of 64 MiB free"),
    ("memory", "huge_pages", "never", "huge pages", "never"),
    ("memory", "huge_pages_shared", "never", "huge pages of shared memory", "never"),
    ("memory", "numa_balancing", 1, "NUMA balancing", "on"),
    ("system", "compiler", None, "compiler", "none"),
    ("system", "open_files", 256, "open files", "256"),
]

# What a kernel may not tell.
UNKNOWN = [
    ("processor", "governor", "governor"),
    ("processor", "clocksource", "clock source"),
    ("scheduling", "busy_share", "load"),
    ("scheduling", "steal_share", "steal"),
    ("scheduling", "waiting_share", "oversubscription"),
    ("memory", "available", "memory"),
    ("memory", "shm_size", "/dev/shm"),
    ("memory", "huge_pages", "huge pages"),
    ("memory", "huge_pages_shared", "huge pages of shared memory"),
    ("memory", "numa_balancing", "NUMA balancing"),
]


def findings_with(section, fact, value):
    facts = copy.deepcopy(GOOD)
    facts[section][fact] = value
    return {finding.name: finding for finding in examine(facts)}


def test_in_a_good_machine_everything_is_good_and_there_is_nothing_to_do():
    for finding in examine(GOOD):
        assert (finding.verdict, finding.why, finding.command) == ("good", "", ""), finding
        assert finding.found


@pytest.mark.parametrize(("section", "fact", "value", "name", "found"), POOR, ids=[f"{p[1]}={p[2]}" for p in POOR])
def test_each_fault_is_found_alone_with_what_it_harms(section, fact, value, name, found):
    findings = findings_with(section, fact, value)
    assert [n for n, finding in findings.items() if finding.verdict != "good"] == [name]
    assert found in findings[name].found
    assert findings[name].why
    assert findings[name].command or name == "steal"  # the host's, not ours


@pytest.mark.parametrize(("section", "fact", "name"), UNKNOWN)
def test_what_the_kernel_does_not_tell_is_unknown_not_poor(section, fact, name):
    findings = findings_with(section, fact, None)
    assert [n for n, finding in findings.items() if finding.verdict != "good"] == [name]
    assert findings[name].verdict == "unknown"


def test_without_the_size_of_memory_nothing_is_said_of_its_shares():
    findings = findings_with("memory", "total", None)
    assert {n for n, finding in findings.items() if finding.verdict == "unknown"} == {"memory", "/dev/shm"}
    assert all(finding.verdict != "poor" for finding in findings.values())


def test_memory_is_measured_by_the_limit_of_the_control_group():
    findings = findings_with("memory", "limit", 4 << 30)
    assert "a limit of 4 GiB" in findings["memory"].found
    facts = copy.deepcopy(GOOD)
    facts["memory"] |= {"limit": 4 << 30, "shm_size": 1 << 30, "available": 3 << 30}
    assert all(finding.verdict == "good" for finding in examine(facts))
