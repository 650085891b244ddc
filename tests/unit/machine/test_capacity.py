"""The numbers of control groups, read from a pretended /proc and /sys."""

import pytest

from fastps.errors import ArenaMemoryError
from fastps.machine import capacity

MIB = 1 << 20


@pytest.fixture
def machine(monkeypatch):
    """A dict of path -> text that the module sees instead of the file system."""
    files = {"/proc/meminfo": f"MemTotal: 4000 kB\nMemAvailable: {1000 * 1024} kB\n", "/proc/self/cgroup": "0::/\n"}

    class PretendedPath(type(capacity.Path())):
        def read_text(self, *_, **__):
            if str(self) not in files:
                raise FileNotFoundError(str(self))
            return files[str(self)]

    monkeypatch.setattr(capacity, "Path", PretendedPath)
    return files


def test_without_limits_what_the_machine_has_is_available(machine):
    assert capacity.available_bytes() == 1000 * MIB


def test_a_group_without_a_limit_does_not_count(machine):
    machine |= {"/sys/fs/cgroup/memory.max": "max\n", "/sys/fs/cgroup/memory.current": f"{900 * MIB}\n"}
    assert capacity.available_bytes() == 1000 * MIB


def test_the_tightest_group_up_to_the_root_decides(machine):
    machine["/proc/self/cgroup"] = "0::/pod/container\n"
    machine |= {
        "/sys/fs/cgroup/pod/container/memory.max": f"{800 * MIB}\n",
        "/sys/fs/cgroup/pod/container/memory.current": f"{100 * MIB}\n",
        "/sys/fs/cgroup/pod/memory.max": f"{500 * MIB}\n",
        "/sys/fs/cgroup/pod/memory.current": f"{200 * MIB}\n",
    }
    assert capacity.available_bytes() == 300 * MIB


def test_the_older_groups_are_understood(machine):
    machine["/proc/self/cgroup"] = "9:cpu,memory:/job\n1:name=systemd:/\n"
    machine |= {
        "/sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{64 * MIB}\n",
        "/sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{60 * MIB}\n",
    }
    assert capacity.available_bytes() == 4 * MIB


def test_a_group_over_its_limit_leaves_nothing(machine):
    machine |= {"/sys/fs/cgroup/memory.max": "10\n", "/sys/fs/cgroup/memory.current": "20\n"}
    assert capacity.available_bytes() == 0


def test_asking_for_more_raises_a_memory_error_with_both_sizes(machine):
    capacity.require(1000 * MIB, "shard 0 of 1")
    with pytest.raises(ArenaMemoryError, match=r"shard 0 of 1: asked for 1,001 MiB.*1,000 MiB are available"):
        capacity.require(1001 * MIB, "shard 0 of 1")


def test_this_machine_has_some_memory():
    assert capacity.available_bytes() > 0


def test_shards_that_are_created_at_once_must_fit_together_on_each_node():
    needs = [capacity.Need(f"shard {i} of 4", "ab"[i % 2], 400 * MIB, 1000 * MIB) for i in range(4)]
    capacity.require_all(needs)
    with pytest.raises(ArenaMemoryError, match=r"shard 4 of 5: asked for 400 MiB .*, 200 MiB are available"):
        capacity.require_all([*needs, capacity.Need("shard 4 of 5", "a", 400 * MIB, 1000 * MIB)])
