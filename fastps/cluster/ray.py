"""Ray: connecting to it, its nodes and named actors, and its errors translated into those of fastps.

Called by the server and by the ray transport. Nothing here knows what a shard does.
"""

from __future__ import annotations

import contextlib
import os
import re
from concurrent.futures import CancelledError
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray._private import services
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fastps.cluster.address import chosen, is_local, require_reachable
from fastps.deadline import deadline_after, left_until
from fastps.errors import (
    ClosedError,
    FastPSError,
    ParameterError,
    RayRequiredError,
    ShardDiedError,
    UnavailableError,
    WaitTimeoutError,
)
from fastps.spec.tree import children_of, is_container

if TYPE_CHECKING:
    from fastps.spec.server import ServerSpec

NAMESPACE = "fastps"
LONGEST = 1e8  # seconds; Ray counts milliseconds in 64 bits
THREADS = ("worker.io", "gcs_client_io")  # started by Ray in every connected process
GENERATED = re.compile(r"[0-9a-f]{32}/")
Connection = tuple[str, str]  # the ids of a node and of a job


def start() -> None:
    """Connects to Ray as `ray.init` does: to a running cluster if there is one, otherwise to a new one."""
    if not ray.is_initialized():
        init(log_to_driver=True)
    require("create")


def init(**options: Any) -> None:
    """`ray.init`. Raises RayRequiredError where Ray gives up waiting for the processes that it has started."""
    try:
        ray.init(**options)
    except Exception as error:
        if type(error) not in (Exception, RuntimeError):  # those that Ray raises then
            raise
        ray.shutdown()
        raise RayRequiredError(
            f"Ray did not start: {first_line(error)} It waits half a minute for its processes: try again when the "
            f"machine is less busy, or run `ray start --head` first and set RAY_ADDRESS to the address that it prints"
        ) from error


def join(what: str) -> None:
    """Connects to the running cluster that `address.chosen` selects; starts none. Raises RayRequiredError."""
    if ray.is_initialized():
        require(what)
        return
    try:
        recorded = services.find_bootstrap_address(None)  # by `ray start`
        address = chosen(os.environ.get("RAY_ADDRESS"), recorded, services.find_gcs_addresses())
        require_reachable(address)
    except ValueError as error:
        raise RayRequiredError(
            f"{what}: {error}; set RAY_ADDRESS to the address of the cluster that the server lives in, which "
            f"ray.get_runtime_context().gcs_address says there"
        ) from None
    if is_local(address):
        _bring_token()
    try:
        init(address=address)
    except (ConnectionError, ray.exceptions.RayError) as error:
        raise RayRequiredError(
            f"{what}: the Ray cluster at {address} does not let this process in ({first_line(error)}); where it asks "
            f"for a token, start this program with RAY_AUTH_MODE=token in its environment, and the cluster's token in "
            f"~/.ray/auth_token or RAY_AUTH_TOKEN"
        ) from error


def _bring_token() -> None:
    """Clusters that `ray.init()` starts ask for the token in the user's home, which Ray sends by default only to
    clusters that it has found itself. Raylets before 2.59 have no tokens."""
    with contextlib.suppress(ImportError):
        from ray._private.authentication import authentication_token_setup as tokens

        tokens.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def connection() -> Connection | None:
    """Identifies this process's connection to Ray; None without one. In a forked child Ray seems to be initialized, but
    every call would hang: None, too."""
    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    here = context.get_node_id(), context.get_job_id()
    return here if _is_own(os.getpid(), here) else None


@lru_cache(8)
def _is_own(pid: int, here: Connection) -> bool:
    """Whether Ray's threads run in this process: a forked child has none."""
    names = (_name_of_thread(path) for path in Path("/proc/self/task").iterdir())
    return any(name.startswith(THREADS) for name in names)


def _name_of_thread(path: Path) -> str:
    try:
        return (path / "comm").read_text()
    except OSError:  # the thread has ended
        return ""


def connected() -> bool:
    return connection() is not None


def require(what: str) -> Connection:
    """This process's connection to Ray. Raises RayRequiredError without one: Ray would hang, or start itself."""
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
    """The Ray actor of a shard. Raises RayRequiredError, or ShardDiedError if this cluster has no such actor."""
    return actor(spec.actors[shard], spec.addresses[shard].actor_id, spec.label(shard))


def actor(name: str, actor_id: str, what: str) -> Any:
    """The Ray actor with this name, if it still has this id. Raises as `actor_of` does."""
    return _actor(require(what), name, actor_id, what)


@lru_cache(1024)
def _actor(here: Connection, name: str, actor_id: str, what: str) -> Any:
    """Uses `ray.get_actor`, whose handles keep no actor alive."""
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
    """Replaces Ray object references, and futures, in containers by their values.

    Raises WaitTimeoutError when they are not there within `timeout` seconds. Errors of tasks are raised as Ray does.
    """
    return _resolved(value, deadline_after(timeout))


def _resolved(value: Any, deadline: float) -> Any:
    if isinstance(value, ray.ObjectRef):
        return get(value, left_until(deadline), "push: the ObjectRef")
    if type(value) in (list, tuple):
        return [_resolved(item, deadline) for item in value]
    if is_container(value):
        return {name: _resolved(item, deadline) for name, item in children_of(value, (), "push")}
    if callable(getattr(value, "result", None)) and callable(getattr(value, "done", None)):
        try:
            return value.result(left_until(deadline))
        except TimeoutError:
            if value.done():
                raise  # the future's own error
            raise WaitTimeoutError("push: the future had no result in time") from None
        except CancelledError:
            raise ParameterError("push: a future among the gradients was cancelled; nothing was applied") from None
    return value


def get(refs: Any, timeout: float | None, what: str) -> Any:
    """ray.get with fastps's errors: the error of a shard is raised as it was there."""
    require(what)
    try:
        return ray.get(refs, timeout=None if timeout is None else min(timeout, LONGEST))
    except ray.exceptions.GetTimeoutError:
        raise WaitTimeoutError(f"{what}: no reply within {timeout:g} s") from None
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


def end(actor: Any, seconds: float = 0.0) -> None:
    """Ends the process of an actor at once, unless Ray has ended. With `seconds`, waits that long until it does nothing
    any more."""
    if not connected():
        return
    ray.kill(actor)
    deadline = deadline_after(seconds)
    with contextlib.suppress(ray.exceptions.RayError):  # it has ended, or the time is up
        while seconds:
            ray.get(actor.__ray_ready__.remote(), timeout=left_until(deadline))


def start_on(node_id: str, cls: type, concurrency: int, name: str) -> Any:
    """A function that starts an async actor of a class on a node; the actor ends with the process that starts it."""
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


def names() -> list[str]:
    """The names of the servers in this cluster, of those that have one."""
    ours = [actor["name"] for actor in ray.util.list_named_actors(True) if actor["namespace"] == NAMESPACE]
    return sorted(name for name in ours if not GENERATED.match(name))


def generated(server_id: str, what: str) -> str:
    """A name for an actor that only fastps looks for."""
    return f"{server_id}/{what}"


def named_actor(name: str) -> Any | None:
    """The actor of this name in fastps's namespace, or None."""
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def living_actor(name: str, timeout: float) -> Any | None:
    """The same, but None for one that has died: Ray keeps its name for as long as its owner refers to it, so the name
    is freed. One that does not reply in time is taken to live."""
    found = named_actor(name)
    if found is not None:
        try:
            ray.get(found.__ray_ready__.remote(), timeout=timeout)
        except ray.exceptions.ActorDiedError:
            ray.kill(found)
            return None
        except ray.exceptions.RayError:
            pass
    return found
