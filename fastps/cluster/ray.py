"""Ray: starting it, finding nodes, placing shards, and translating its errors.

Called by the server and by the ray transport. Nothing here knows what a shard does.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray._private import services
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from fastps.cluster.address import chosen, is_local, require_answer
from fastps.deadline import deadline_after, left_until
from fastps.errors import (
    ClosedError,
    FastPSError,
    ParameterError,
    PlacementError,
    RayRequiredError,
    ShardDiedError,
    UnavailableError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from fastps.spec.server import ServerSpec

NAMESPACE = "fastps"
LONGEST = 1e8  # seconds; Ray counts milliseconds in 64 bits
STRATEGIES = ("SPREAD", "PACK", "STRICT_SPREAD", "STRICT_PACK")
Placement = str | Mapping[str, Any] | Sequence[Any] | None
THREADS = ("worker.io", "gcs_client_io")  # that Ray starts in every process that is in it
GENERATED = re.compile(r"[0-9a-f]{32}/")
Connection = tuple[str, str]  # the ids of a node and of a job


def start() -> None:
    """Connects to Ray as Ray itself does: to a running cluster when there is one, otherwise to a new one."""
    if not ray.is_initialized():
        ray.init(log_to_driver=True)
    require("create")


def join(what: str) -> None:
    """Connects to a Ray that runs, as `address.chosen` has it. Raises RayRequiredError where it cannot; starts none."""
    if ray.is_initialized():
        require(what)
        return
    try:
        recorded = services.find_bootstrap_address(None)  # by `ray start`
        address = chosen(os.environ.get("RAY_ADDRESS"), recorded, services.find_gcs_addresses())
        require_answer(address)
    except ValueError as error:
        raise RayRequiredError(
            f"{what}: {error}; set RAY_ADDRESS to the address of the cluster that the server lives in, which "
            f"ray.get_runtime_context().gcs_address says there"
        ) from None
    if is_local(address):
        _bring_token()
    try:
        ray.init(address=address)
    except (ConnectionError, ray.exceptions.RayError) as error:
        raise RayRequiredError(
            f"{what}: the Ray cluster at {address} does not let this process in ({first_line(error)}); where it asks "
            f"for a token, start this program with RAY_AUTH_MODE=token in its environment, and the cluster's token in "
            f"~/.ray/auth_token or RAY_AUTH_TOKEN"
        ) from error


def _bring_token() -> None:
    """Clusters that `ray.init()` starts ask for the token in the user's home, which Ray shows by itself only to those
    that it has found by itself. Raylets before 2.59 have no tokens."""
    with contextlib.suppress(ImportError):
        from ray._private.authentication import authentication_token_setup as tokens

        tokens.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def connection() -> Connection | None:
    """What tells this process's connection to Ray from earlier ones; None without one, as in a child that was forked:
    there Ray seems to be initialized, and every call hangs."""
    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    here = context.get_node_id(), context.get_job_id()
    return here if _is_own(os.getpid(), here) else None


@lru_cache(8)
def _is_own(pid: int, here: Connection) -> bool:
    """Whether Ray's threads live in this process: a fork leaves them behind."""
    names = (_name_of_thread(path) for path in Path("/proc/self/task").iterdir())
    return any(name.startswith(THREADS) for name in names)


def _name_of_thread(path: Path) -> str:
    try:
        return (path / "comm").read_text()
    except OSError:  # it has ended
        return ""


def connected() -> bool:
    return connection() is not None


def require(what: str) -> Connection:
    """This process's connection to Ray. Raises RayRequiredError without one, where Ray would hang, or start itself."""
    here = connection()
    if here is not None:
        return here
    if ray.is_initialized():
        raise RayRequiredError(
            f"{what}: needs Ray, and this process was forked from one that is connected to it, whose connection is of "
            f"no use here; use a Ray task, or a process started by multiprocessing.get_context('spawn') that calls "
            f"ray.init(address=...) with the address of the server's cluster"
        )
    raise RayRequiredError(
        f"{what}: needs Ray, to which this process is not connected; use a Ray task, or call ray.init(address=...) "
        f"with the address of the server's cluster first"
    )


def this_node() -> str | None:
    """Ray's id of this process's node, in hex; None outside of Ray."""
    here = connection()
    return None if here is None else here[0]


def actor_of(spec: ServerSpec, shard: int) -> Any:
    """The Ray actor of a shard. Raises RayRequiredError, or ShardDiedError when it does not live in this Ray."""
    return actor(spec.actors[shard], spec.addresses[shard].actor_id, spec.label(shard))


def actor(name: str, actor_id: str, what: str) -> Any:
    """The Ray actor of a name, if it is still the one of this id. Raises as `actor_of` does."""
    return _actor(require(what), name, actor_id, what)


@lru_cache(1024)
def _actor(here: Connection, name: str, actor_id: str, what: str) -> Any:
    """What `ray.get_actor` answers keeps no actor alive."""
    found = named_actor(name)
    if found is None or id_of(found) != actor_id:
        raise ShardDiedError(
            f"{what}: it has ended, or lives in another Ray than the one that this process is connected to now; create "
            f"the server again"
        )
    return found


def id_of(actor: Any) -> str:
    """Ray's id of an actor, in hex."""
    found: str = actor._actor_id.hex()
    return found


def nodes() -> dict[str, dict[str, float]]:
    """The live nodes with all their resources."""
    return {node["NodeID"]: dict(node["Resources"]) for node in ray.nodes() if node["Alive"]}


def resolve(value: Any, timeout: float) -> Any:
    """Replaces Ray object references, and futures, in a (nested mapping of) values by what they stand for.

    Raises WaitTimeoutError when they are not there within `timeout` seconds. What a task raised comes as Ray has it.
    """
    return _resolved(value, deadline_after(timeout))


def _resolved(value: Any, deadline: float) -> Any:
    if isinstance(value, ray.ObjectRef):
        return get(value, left_until(deadline), "push: the ObjectRef")
    if isinstance(value, Mapping):
        return {name: _resolved(item, deadline) for name, item in value.items()}
    if callable(getattr(value, "result", None)) and callable(getattr(value, "done", None)):
        try:
            return value.result(left_until(deadline))
        except TimeoutError:
            if value.done():
                raise  # its own
            raise WaitTimeoutError("push: the future had no result in time") from None
        except CancelledError:
            raise ParameterError("push: a future among the gradients was cancelled; nothing was applied") from None
    return value


def get(refs: Any, timeout: float | None, what: str) -> Any:
    """ray.get with fastps's errors: what a shard raised comes as it was raised."""
    require(what)
    try:
        return ray.get(refs, timeout=None if timeout is None else min(timeout, LONGEST))
    except ray.exceptions.GetTimeoutError:
        raise WaitTimeoutError(f"{what}: no answer within {timeout:g} s") from None
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, FastPSError):
            raise cause from None
        raise
    except ray.exceptions.ActorUnavailableError as error:
        raise UnavailableError(f"{what}: the connection was lost ({first_line(error)}); try again") from None
    except ray.exceptions.RayActorError as error:
        if "ray.kill" in str(error):  # how an owner's close() ends the process
            raise ClosedError(f"{what}: the server was closed; create a new one") from None
        raise ShardDiedError(
            f"{what}: its process is gone, killed or with the program that created the server; create the server again "
            f"({first_line(error)})"
        ) from None


def start_on(node_id: str, cls: type, concurrency: int, name: str) -> Any:
    """What starts an actor of a class with coroutines on a node; it lives as long as the process that starts it."""
    here = NodeAffinitySchedulingStrategy(node_id, soft=False)
    options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "enable_task_events": False}
    return ray.remote(cls).options(
        name=name, namespace=NAMESPACE, max_concurrency=concurrency, scheduling_strategy=here, **options
    ).remote  # fmt: skip


def available() -> dict[str, float]:
    """The resources that the cluster has free."""
    return dict(ray.available_resources())


def first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]


@dataclass
class Owned:
    """What ends with a server: the actors of its shards, which live as long as their owner has these handles, and
    where they were placed."""

    connection: Connection
    placed: Placed
    actors: list[Any]

    def end(self, timeout: float) -> None:
        """Tells the shards, then ends their processes. What has gone with Ray is gone."""
        if connection() != self.connection:
            return
        with contextlib.suppress(FastPSError):  # a shard that is gone or stuck is killed all the same
            get([actor.close.remote() for actor in self.actors], timeout, "close")
        self.kill()

    def kill(self) -> None:
        for actor in self.actors:
            ray.kill(actor)
        self.placed.release()


@dataclass
class Placed:
    """How to start each shard's actor, and the placement group to remove when the shards are gone."""

    options: list[dict[str, Any]]
    group: Any = None

    def release(self) -> None:
        if self.group is not None:
            remove_placement_group(self.group)
            self.group = None


def place(placement: Placement, num_shards: int, timeout: float) -> Placed:
    """Turns a `placement` argument into options of Ray actors.

    None puts all shards on this process's node. A strategy's name spreads or packs them by a placement group; a mapping
    (or a sequence of them, one a shard) asks for resources, `{"num_cpus": 1, "resources": {"label": 0.1}}`; a sequence
    of strings names nodes by id. Raises PlacementError for what no node of the cluster has, and when a placement group
    is not ready within `timeout` seconds.
    """
    known = nodes()
    if placement is None:
        here = NodeAffinitySchedulingStrategy(this_node(), soft=False)  # Ray ignores a soft one without resources
        return Placed([{"num_cpus": 0, "scheduling_strategy": here} for _ in range(num_shards)])
    if isinstance(placement, str):
        return _by_strategy(placement, num_shards, known, timeout)
    if not isinstance(placement, (Mapping, Sequence)):
        raise PlacementError(
            f"placement: expected None, one of {STRATEGIES}, a mapping of resources, or a sequence with one entry a "
            f"shard, got {type(placement).__name__} {placement!r}"
        )
    each = [placement] * num_shards if isinstance(placement, Mapping) else list(placement)
    if len(each) != num_shards:
        raise PlacementError(f"placement: expected one entry for each of {num_shards} shards, got {len(each)}")
    return Placed([_one(entry, shard, known) for shard, entry in enumerate(each)])


def _one(entry: Any, shard: int, known: dict[str, dict[str, float]]) -> dict[str, Any]:
    if isinstance(entry, str):
        if entry not in known:
            raise PlacementError(
                f"placement of shard {shard}: no live node has the id {entry!r}; the live nodes are {sorted(known)}"
            )
        return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(entry, soft=False)}
    if not isinstance(entry, Mapping):
        raise PlacementError(
            f"placement of shard {shard}: expected one of {STRATEGIES}, a mapping of resources or node ids, got "
            f"{type(entry).__name__} {entry!r}"
        )
    unknown = set(entry) - {"num_cpus", "num_gpus", "memory", "resources"}
    if unknown:
        raise PlacementError(
            f"placement of shard {shard}: unknown {sorted(unknown)}; expected num_cpus, num_gpus, memory or resources"
        )
    options = {"num_cpus": 0, **entry}
    asked = {"CPU": options["num_cpus"], "GPU": options.get("num_gpus"), "memory": options.get("memory")}
    asked |= options.get("resources") or {}
    try:
        wanted = {name: float(amount) for name, amount in asked.items() if amount}
    except (TypeError, ValueError):
        raise PlacementError(f"placement of shard {shard}: expected numbers as amounts, got {dict(entry)}") from None
    if not any(all(has.get(name, 0) >= amount for name, amount in wanted.items()) for has in known.values()):
        have = {node[:8]: {n: has.get(n, 0) for n in wanted} for node, has in known.items()}
        raise PlacementError(f"placement of shard {shard}: no node has {wanted}; the live nodes have {have}")
    return options


def _by_strategy(strategy: str, num_shards: int, known: dict[str, dict[str, float]], timeout: float) -> Placed:
    if strategy not in STRATEGIES:
        raise PlacementError(f"placement: unknown strategy {strategy!r}; expected one of {STRATEGIES}")
    if strategy == "STRICT_SPREAD" and num_shards > len(known):
        raise PlacementError(
            f"placement: STRICT_SPREAD puts {num_shards} shards on different nodes, but only {len(known)} live"
        )
    # A bundle must ask for something: a thousandth of a CPU.
    group = placement_group([{"CPU": 0.001}] * num_shards, strategy=strategy)
    try:
        ready = _wait(group, deadline_after(timeout))
    except BaseException:
        remove_placement_group(group)
        raise
    if not ready:
        remove_placement_group(group)
        raise PlacementError(
            f"placement: the cluster could not reserve {strategy} for {num_shards} shards within {timeout:g} s; it has "
            f"{available()} left"
        )
    return Placed(
        [
            {"num_cpus": 0.001, "scheduling_strategy": PlacementGroupSchedulingStrategy(group, i)}
            for i in range(num_shards)
        ],
        group,
    )


def _wait(group: Any, deadline: float) -> bool:
    """In short steps: Ray looks at signals only between them."""
    while left_until(deadline) > 0:
        if group.wait(min(0.5, left_until(deadline))):
            return True
    return False


def names() -> list[str]:
    """Of the servers in this cluster that have one."""
    ours = [actor["name"] for actor in ray.util.list_named_actors(True) if actor["namespace"] == NAMESPACE]
    return sorted(name for name in ours if not GENERATED.match(name))


def generated(server_id: str, what: str) -> str:
    """The name of an actor that only fastps looks for."""
    return f"{server_id}/{what}"


def named_actor(name: str) -> Any | None:
    """The actor of this name in fastps's namespace, or None."""
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None
