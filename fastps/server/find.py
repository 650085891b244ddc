"""Finding servers: those of this process, and those of the cluster by name."""

from __future__ import annotations

from fastps.cluster import pickled
from fastps.cluster import ray as cluster
from fastps.deadline import seconds
from fastps.errors import OptionError, ServerNotFoundError, WaitTimeoutError
from fastps.server.handle import ParameterServer, creations, handle_of

GET_SECONDS = 60.0


def servers() -> list[ParameterServer]:
    """A handle of each server that this process has created and not closed, with which it can be closed.

    For programs and notebooks that have dropped a handle: ``for ps in fastps.servers(): ps.close()``.
    """
    found = []
    for spec, owned, reference in creations.living():
        server = reference()
        if server is None:
            server = handle_of(spec, owned)
            creations.add(spec, owned, server)
        found.append(server)
    return found


def get(name: str, *, timeout: float | None = None) -> ParameterServer:
    """A handle of the server that another driver of the cluster created under `name`.

    A process that is not connected to Ray connects to the cluster at RAY_ADDRESS, else to that of the latest
    ``ray start`` on this machine, else to the only one that runs on it. It starts none.

    Parameters
    ----------
    name : str
        As given to `ParameterServer`.
    timeout : float, optional
        Seconds to wait for the server's reply; None: 60. Connecting to a cluster takes up to 25 more.

    Raises
    ------
    ServerNotFoundError
        The cluster has no server of that name.
    RayRequiredError
        No cluster runs, or several do, or it does not let this process in: its token is missing or wrong.
    WaitTimeoutError
        The process of the server's first shard is stopped, or busy for longer.

    Notes
    -----
    Cost: two Ray calls.
    """
    if not isinstance(name, str) or not name:
        raise OptionError(f"get: expected a non-empty str, got {name!r}")
    limit, what = seconds(timeout), f"get({name!r})"
    limit = GET_SECONDS if limit is None else limit
    cluster.join(what)
    actor = cluster.named_actor(name)
    try:
        whole = None if actor is None else cluster.get(actor.spec.remote(), limit, what)
    except WaitTimeoutError as error:
        raise WaitTimeoutError(
            f"{error}: the process of its first shard is stopped, or busy for longer; see it with `ray list actors`, "
            f"or pass a larger timeout="
        ) from None
    if whole is None:
        raise ServerNotFoundError(
            f"{what}: no server of that name lives in this cluster, only {cluster.names()}; create it with "
            f"ParameterServer(..., name={name!r}), or set RAY_ADDRESS to the address of the cluster in which it lives"
        )
    return handle_of(pickled.spec(whole, what))
