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
# Seconds of the longest modules on a quiet machine, roughly: `pytest --durations=0` has them. Others count as SHORT.
SHORT = 2
SECONDS: dict[str, int] = {}


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
