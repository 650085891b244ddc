"""What a machine says of itself, read from a tree of files that stands for its kernel."""

import json

import pytest

from fastps.machine import facts as machine

TREE = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nflags\t\t: fpu avx2 hypervisor\n\n"
    "processor\t: 1\nmodel name\t: Another\n",
    "proc/loadavg": "1.50 0.70 0.30 2/345 6789\n",
    "proc/stat": "cpu  100 0 50 800 20 0 5 25 0 0\ncpu0 1 2 3\n",
    "proc/pressure/cpu": "some avg10=27.20 avg60=1.00 avg300=2.00 total=1\nfull avg10=0.00 avg60=0.00 total=0\n",
    "proc/meminfo": "MemTotal: 16384 kB\nMemAvailable: 8192 kB\nSwapTotal: 1024 kB\nSwapFree: 512 kB\n",
    "proc/self/cgroup": "0::/outer/inner\n",
    "proc/sys/kernel/numa_balancing": "1\n",
    "sys/fs/cgroup/outer/memory.max": "4194304\n",
    "sys/fs/cgroup/outer/inner/memory.max": "max\n",
    "sys/fs/cgroup/outer/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/outer/inner/cpu.max": "max 100000\n",
    "sys/devices/system/cpu/cpu0/cache/index0/level": "1\n",
    "sys/devices/system/cpu/cpu0/cache/index0/type": "Data\n",
    "sys/devices/system/cpu/cpu0/cache/index0/size": "32K\n",
    "sys/devices/system/cpu/cpu0/cache/index3/level": "3\n",
    "sys/devices/system/cpu/cpu0/cache/index3/type": "Unified\n",
    "sys/devices/system/cpu/cpu0/cache/index3/size": "16384K\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "0,4-5\n",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
    "sys/devices/system/node/node0/x": "",
    "sys/devices/system/node/node1/x": "",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/kernel/mm/transparent_hugepage/shmem_enabled": "always within_size advise [never] deny force\n",
    "sys/kernel/mm/transparent_hugepage/hpage_pmd_size": "2097152\n",
    "etc/os-release": 'NAME="Some"\nPRETTY_NAME="Some Linux 1"\n',
    ".dockerenv": "",
    "dev/shm/x": "",
}


@pytest.fixture
def root(tmp_path):
    for name, content in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def test_every_fact_comes_from_its_file(root):
    facts = machine.facts(root, 0)
    processor, memory = facts["processor"], facts["memory"]
    assert processor["model"] == "Some CPU @ 2.0GHz"
    assert processor["caches"] == {"L1d": "32K", "L3": "16384K"}
    assert (processor["governor"], processor["boost"], processor["clocksource"]) == ("powersave", False, "hpet")
    assert (processor["threads_a_core"], processor["numa_nodes"], processor["virtual"]) == (3, 2, True)
    assert processor["quota_cores"] == 1.5
    assert (memory["total"], memory["available"], memory["limit"]) == (16 << 20, 8 << 20, 4 << 20)
    assert (memory["swap_total"], memory["swap_free"]) == (1 << 20, 1 << 19)
    assert (memory["huge_pages"], memory["huge_pages_shared"]) == ("madvise", "never")
    assert memory["huge_page_bytes"] == 2 << 20
    assert memory["numa_balancing"] == 1
    assert memory["shm_size"] > 0
    assert (facts["scheduling"]["load"], facts["scheduling"]["waiting_share"]) == (1.5, 0.272)
    assert facts["system"]["distribution"] == "Some Linux 1"
    assert facts["system"]["container"] == "docker"


@pytest.mark.parametrize("gone", [*TREE, "everything"])
def test_what_the_kernel_does_not_tell_is_none_and_nothing_fails(root, gone):
    if gone == "everything":
        facts = machine.facts(root / "nowhere", 0)
        assert facts["processor"]["model"] is None
        assert facts["memory"]["total"] is None
        assert facts["scheduling"]["steal_share"] is None
    else:
        (root / gone).unlink()
        facts = machine.facts(root, 0)
    json.dumps(facts)


def test_what_is_no_number_is_none(root):
    (root / "proc/sys/kernel/numa_balancing").write_text("yes\n")
    assert machine.facts(root, 0)["memory"]["numa_balancing"] is None


def test_shares_are_of_the_time_looked_at(root, monkeypatch):
    later = "cpu  140 0 50 850 20 0 5 35 0 0\n"  # 100 ticks: 40 user, 50 idle, 10 taken by the host
    monkeypatch.setattr(machine.time, "sleep", lambda _: (root / "proc/stat").write_text(later))
    scheduling = machine.facts(root, 1)["scheduling"]
    assert (scheduling["busy_share"], scheduling["steal_share"]) == (0.5, 0.1)


def test_this_machine_has_a_processor_memory_and_the_packages_that_this_test_runs_with():
    facts = machine.facts(steal_seconds=0.05)
    assert facts["processor"]["affinity"]
    assert 0 < facts["memory"]["available"] <= facts["memory"]["total"]
    assert 0 <= facts["scheduling"]["busy_share"] <= 1
    assert facts["versions"]["numpy"]
    assert facts["versions"]["fastps"]
    assert json.loads(json.dumps(facts)) == facts
