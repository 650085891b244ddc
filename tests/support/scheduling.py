"""Which worker of pytest-xdist runs which module, and when: whole modules, the longest first, those that need the same
Ray on the same workers, so that not each of them starts every Ray.

A worker writes down what modules need once it has collected them: the process that distributes them has no tests.
"""

from __future__ import annotations

import json
from collections import Counter

from xdist.scheduler import LoadScopeScheduling

from tests.support.run import FOLDER

RAYS = {"three_nodes", "one_node"}
# Seconds of the processor that the longest modules take, roughly. Others count as SHORT. What is wrong here costs a
# minute at the end, in which some workers have nothing to do, and no more.
SHORT = 2
SECONDS = {
    "tests/conformance/test_carriers.py": 10,
    "tests/conformance/test_consistency.py": 15,
    "tests/conformance/test_consistency_across_nodes.py": 30,
    "tests/conformance/test_half_precision.py": 50,
    "tests/conformance/test_life_of_rows.py": 20,
    "tests/conformance/test_local_sgd.py": 30,
    "tests/conformance/test_round_workers.py": 30,
    "tests/conformance/test_rounds.py": 10,
    "tests/conformance/test_rounds_across_nodes.py": 40,
    "tests/conformance/test_rules.py": 55,
    "tests/conformance/test_tables.py": 45,
    "tests/conformance/test_transports.py": 70,
    "tests/fault/test_crashes_of_saves.py": 15,
    "tests/fault/test_crashes_of_writers.py": 30,
    "tests/fault/test_death_in_rounds.py": 15,
    "tests/fault/test_death_of_drivers.py": 20,
    "tests/fault/test_death_of_members.py": 10,
    "tests/fault/test_death_of_the_coordinator.py": 15,
    "tests/fault/test_death_of_workers.py": 10,
    "tests/fault/test_full_tables.py": 25,
    "tests/fault/test_servers_that_are_gone.py": 25,
    "tests/fault/test_signals.py": 15,
    "tests/fault/test_tables.py": 25,
    "tests/fault/test_threads.py": 15,
    "tests/fault/test_training_that_is_killed.py": 15,
    "tests/fault/test_waiting.py": 25,
    "tests/model/test_model.py": 10,
    "tests/system/test_capacity_of_tables.py": 10,
    "tests/system/test_checkpoint_commands.py": 15,
    "tests/system/test_compare.py": 10,
    "tests/system/test_demo.py": 60,
    "tests/system/test_distributions.py": 25,
    "tests/system/test_documents_run.py": 20,
    "tests/system/test_examples.py": 40,
    "tests/system/test_get.py": 15,
    "tests/system/test_handles.py": 25,
    "tests/system/test_many_arrays.py": 10,
    "tests/system/test_names_and_rules.py": 15,
    "tests/system/test_own_ray.py": 10,
    "tests/system/test_parts_across_nodes.py": 20,
    "tests/system/test_parts_of_a_model.py": 20,
    "tests/system/test_placement.py": 30,
    "tests/system/test_processes.py": 30,
    "tests/system/test_questions.py": 50,
    "tests/system/test_reader.py": 15,
    "tests/system/test_recommend.py": 65,
    "tests/system/test_restart_of_ray.py": 20,
    "tests/system/test_rules.py": 20,
    "tests/system/test_rules_from_anywhere.py": 10,
    "tests/system/test_save.py": 35,
    "tests/system/test_save_across_nodes.py": 12,
    "tests/system/test_save_every.py": 10,
    "tests/system/test_save_remote.py": 12,
    "tests/system/test_save_since.py": 12,
    "tests/system/test_save_tables.py": 20,
    "tests/system/test_saves_that_fail.py": 20,
    "tests/system/test_servers_of_a_process.py": 15,
    "tests/system/test_set.py": 25,
    "tests/system/test_state_dict.py": 30,
    "tests/system/test_structures.py": 20,
    "tests/system/test_suite.py": 35,
    "tests/system/test_sweep.py": 80,
    "tests/system/test_workers.py": 10,
    "tests/unit/bench/report/test_page.py": 10,
    "tests/unit/kernels/test_cache.py": 10,
    "tests/unit/kernels/test_kernels.py": 55,
    "tests/unit/rules/test_library.py": 10,
}


def write_needs(worker, items):
    """Which shared Ray each module needs, for the process that distributes them."""
    needs = {}
    for item in items:
        found = RAYS.intersection(item.fixturenames)
        needs.setdefault(module_of(item.nodeid), set()).update(found)
    path = FOLDER / f"needs-{worker}.json"
    path.write_text(json.dumps({module: sorted(found) for module, found in needs.items()}))
    path.rename(FOLDER / "needs.json")


def module_of(nodeid):
    return nodeid.partition("::")[0]


def weight(module):
    return SECONDS.get(module, SHORT)


class ByModule(LoadScopeScheduling):
    def __init__(self, config, log=None):
        super().__init__(config, log)
        self._needs = None
        self._started = {}  # by worker, the kinds of modules that it has run

    def _split_scope(self, nodeid):
        return module_of(nodeid)

    def _kind(self, module):
        if self._needs is None:
            self._needs = json.loads((FOLDER / "needs.json").read_text())
        return tuple(self._needs[module])

    def _assign_work_unit(self, node):
        self.workqueue.move_to_end(self._next(node), last=False)
        super()._assign_work_unit(node)

    def _next(self, node):
        """The longest module of a kind that this worker has a Ray for; when there is none, of the kind of which most is
        left for each worker that is at it."""
        left = Counter()
        for module in self.workqueue:
            left[self._kind(module)] += weight(module)
        started = self._started.setdefault(node, set())
        workers = Counter(kind for other, kinds in self._started.items() if other is not node for kind in kinds)
        kinds = [kind for kind in left if kind in started] or list(left)
        kind = max(kinds, key=lambda kind: left[kind] / (workers[kind] + 1))
        started.add(kind)
        return max((module for module in self.workqueue if self._kind(module) == kind), key=weight)
