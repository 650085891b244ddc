"""One run of the tests: its mark, its seed, its folders, and the environment of every process that it starts.

Imported before anything starts: by conftest, and by programs that tests start, which then belong to the run that
started them. Under pytest-xdist each worker is a run of its own, with a mark, a Ray and a folder for Ray, inside the
run that started it, with which it shares the seed and the cache of kernels.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORKER = os.environ.pop("PYTEST_XDIST_WORKER", "")  # not for a pytest that a test starts

STARTED = "FASTPS_TEST_RUN" in os.environ
RUN = os.environ.get("FASTPS_TEST_RUN") or f"fastps-tests-{os.getpid()}-{secrets.token_hex(4)}."
FOLDER = Path(os.environ["FASTPS_TEST_FOLDER"] if STARTED else tempfile.mkdtemp(prefix="fps-", dir="/tmp"))
SEED = int(os.environ.get("FASTPS_TEST_SEED") or secrets.randbits(32))
if WORKER:
    RUN = f"{RUN}{WORKER}."  # the dot: gw1 is no beginning of gw10

# Ray adds up to 80 characters for its sockets, whose paths have 107 at most.
RAY_FOLDER = FOLDER / WORKER if WORKER or not STARTED else Path(os.environ["RAY_TMPDIR"])
RAY_FOLDER.mkdir(exist_ok=True)

# Every process that this run starts, and those that they start, inherit these.
os.environ |= {
    "FASTPS_TEST_RUN": RUN,
    "FASTPS_TEST_FOLDER": str(FOLDER),
    "FASTPS_TEST_SEED": str(SEED),
    "FASTPS_CACHE_DIR": str(FOLDER / "kernels"),
    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    "RAY_TMPDIR": str(RAY_FOLDER),  # where a `ray.init()` looks for the record of a cluster to join
    "RAY_worker_niceness": "0",
    "RAY_prestart_worker_first_driver": "0",  # a process of Python for each CPU of a node, most of which no test needs
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DEDUP_LOGS": "0",
}
os.environ.pop("RAY_ADDRESS", None)  # of a cluster of the user's


def remove_folder() -> None:
    """At the end of the run that has made it."""
    if not STARTED:
        shutil.rmtree(FOLDER, ignore_errors=True)
