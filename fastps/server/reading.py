"""What reads a server: common to its handle and its reader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fastps.arrays.types import Array
from fastps.client.attach import Attachment
from fastps.client.future import Future
from fastps.client.queued import pull_async
from fastps.client.state import state_of
from fastps.client.view import View
from fastps.deadline import deadline_after, left_until, seconds
from fastps.errors import NamesError
from fastps.messages import few_of
from fastps.observe.stats import ServerStats
from fastps.tables.reading import TableReading

if TYPE_CHECKING:
    from fastps.checkpoint.periodic import PeriodicSaves
    from fastps.checkpoint.saving import Saving


class ServerReading:
    """What reads a server and changes nothing of it, for `ParameterServer` and `Reader`.

    Attributes
    ----------
    attachment : this process's side of the server
    """

    attachment: Attachment

    def __contains__(self, name: object) -> bool:
        """Whether there is an array or a table of this name."""
        return name in self.attachment.spec.names

    def __iter__(self) -> Iterator[str]:
        """The names of the arrays in order, then of the tables. A bare array is "params", a bare table "table"."""
        return iter(self.attachment.spec.names)

    def __len__(self) -> int:
        """The number of arrays and tables."""
        return len(self.attachment.spec.names)

    def pull(self, *, out: Any = None, names: Any = None, timeout: float | None = None) -> Any:
        """A copy of the parameters, in the structure that they came in.

        Parameters
        ----------
        out : array or container of arrays, optional
            Written in place and returned: writable, C-contiguous arrays of the parameters' shapes and dtypes, for
            float32 also bfloat16 and float16: values are rounded to the nearest, ties to even.
        names : list of str, optional
            Only these arrays, or those in these containers (``"layers/0"``), in the structure of the parameters without
            the others: mappings lack them; lists, tuples, named tuples and dataclasses have None in their places. A
            class that refuses None there raises NamesError: read single arrays by ``ps[name].pull()``, or all of
            them. None for all. `out` has the same arrays, and may have None for others: what such a pull returned fits.
        timeout : float, optional
            Seconds.

        Raises
        ------
        ShapeError, DtypeError, NamesError, OutputError
            `out` or `names` do not fit; nothing was done.
        ClosedError, ShardDiedError, WaitTimeoutError
            What `out` holds is undefined.

        Notes
        -----
        For each shard the state after a whole number of pushes (``isolation="shard"``); NaN passes through. Cost on the
        parameters' node: one C call that copies once; with `out` no allocation, and uncontended no system call. From
        another node: one call for each node that has shards. From 12 MiB on, writes to `out` bypass the caches.
        """
        limit = None if timeout is None else seconds(timeout)
        return (self.attachment.arrays or self.attachment.attach()).pull(out, limit, names)[0]

    def pull_async(self, *, out: Any = None, names: Any = None, timeout: float | None = None) -> Future:
        """Starts a pull and returns a Future of its result. `out` may be written until the Future is done.

        The asynchronous operations of one process on one server, its tables included, run one after the other, in the
        order in which they were started, on a thread of their own; other operations do not wait for them. On the
        parameters' node that thread runs those of plain arrays without the GIL. `timeout` counts from when the
        operation begins. An operation that is cancelled before it begins does nothing; one that has begun continues,
        and a push is applied. Where 1,024 operations are under way, or copies of 1 GiB, it waits for room, and raises
        QueueFullError after `timeout` seconds. Cost: a few microseconds; until the result is there, a thread switch.
        """
        return pull_async(self.attachment.arrays or self.attachment.attach(), out, names, seconds(timeout))

    def flush(self, *, timeout: float | None = None) -> None:
        """Waits for all asynchronous operations of this process on this server that were not cancelled.

        Raises the first error that was not yet retrieved by `Future.result`, `Future.exception` or ``await``, with
        notes on the others, also of operations that had ended before. When operations are still under way after
        `timeout` seconds, raises WaitTimeoutError, with notes on all such errors.
        """
        limit = seconds(timeout)
        session = self.attachment.session
        session.calls.flush(session.limit(limit))

    def slots(self, name: str | None = None, *, timeout: float | None = None) -> Any:
        """A copy of a slot of the rule, such as Adam's ``"m"``, in the structure of the parameters.

        Where arrays have different rules, only those whose rule has the slot. Without `name`, a dict of all slots by
        name. Each shard's part is read between two pushes, that of all slots at once. Raises OptionError for an unknown
        name. Cost: as that of a pull of as many bytes.
        """
        arrays, limit = self.attachment.arrays or self.attachment.attach(), seconds(timeout)
        if name is None:
            return arrays.slots(self.attachment.spec.slot_names(), limit)
        return arrays.slots([name], limit)[name]

    def steps(self, *, timeout: float | None = None) -> Any:
        """The update count of each array that is trained, in the structure of the parameters: the last `step` of its
        rule.

        Where an array has parts on several shards, some of which have had more pushes, the largest.
        """
        return (self.attachment.arrays or self.attachment.attach()).steps(seconds(timeout))

    def state_dict(self, *, timeout: float | None = None) -> dict[str, Array]:
        """The state of the arrays as one flat dict of numpy arrays, for whatever saves such dicts, ``torch.save`` and
        torch's distributed checkpoints among them. `load_state_dict` takes it.

        Returns
        -------
        dict
            New arrays, by key. NAME and PATTERN may contain "/", SLOT and H do not.

            - NAME, a name of the server (those of nested containers are joined by "/"): the values of the array as they
              are stored, float32 or float64, for parameters of half precision float32; of what is carried, its own
              dtype. An array that comes twice in the parameters has both names, and is one object.
            - ``fastps:slots/SLOT/NAME``: the slot of the array's rule, of its shape and dtype.
            - ``fastps:steps/NAME``: int64[], the update count of an array that is trained.
            - ``fastps:hyper/H/PATTERN``: float64[], the hyper-parameter H of the rule for PATTERN. NaN: its schedule
              gives it.

            A server has the same keys at all times. Not in it: strings and other constants among the parameters, rules,
            consistency, and the rows of tables, which `save` and `export` write.

        Raises
        ------
        NamesError
            A name of the parameters begins with "fastps:".
        OptionError
            The server has tables alone.
        WaitTimeoutError, ClosedError, ShardDiedError
            Nothing is returned.

        Notes
        -----
        Of each shard, parameters, slots and counts are those between two pushes, under `BSP` and `LocalSGD` those of
        one round. Hyper-parameters are read after them, on one node. Under `LocalSGD` there are no slots: each worker
        has its own. Where an array has parts on several shards, some of which have had more pushes, its count is the
        largest. Cost: as that of a pull of as many bytes, with new memory for all of it; for each rule a call, where no
        shard is on this node.
        """
        return state_of(self.attachment.arrays or self.attachment.attach(), seconds(timeout))

    def save(
        self,
        path: Any,
        *,
        wait: bool = True,
        since: Any = None,
        consistent: str = "shard",
        timeout: float | None = None,
    ) -> Saving:
        """Saves the state of the server to a new directory: parameters, tables, slots, update counts, hyper-parameters
        and rules. `fastps.restore` makes a server of it, with any number of shards.

        Parameters
        ----------
        path : str or path
            Where the directory will be. It must not exist, and the one above it must, on every node with shards.
        wait : bool
            Whether to wait until it is there; otherwise ``result`` of what is returned waits.
        since : str or path, optional
            An earlier checkpoint in the same file system. Files that would be the same are hard links to its files, and
            of tables of the same server only rows are written that have changed since. Both are complete by themselves.
        consistent : {"shard", "all"}
            Whether the arrays of each shard are those between two pushes, or those of all shards at one moment, at
            which every push was applied on all shards or on none. Pushes wait while that moment is sought: until those
            under way have ended. Shards on several nodes have one only in rounds. Rows of tables are saved one by one.
        timeout : float, optional
            Seconds for all of it.

        Returns
        -------
        Saving
            ``path``, ``done()`` and ``result(timeout)``. Keep it until it is done: dropped, it ends.

        Raises
        ------
        FileError, MissingFileError
            There is something at `path`, or it cannot be written. Nothing was saved.
        CheckpointError
            `since` is damaged. Nothing was saved.
        OptionError
            No moment is that of all shards: they are on several nodes, or have no isolation. Nothing was saved.
        WaitTimeoutError, ClosedError, ShardDiedError, RayRequiredError
            Nothing has the path.

        Notes
        -----
        Nobody is stopped: a process of its own on each node copies each shard's state between two pushes, under `BSP`
        that of one round, and writes it. The directory has safetensors files and a ``manifest.json`` with a checksum of
        each 16 MiB; it gets its name when everything is on the disk. Memory: two shards' state on each node; under
        `BSP` and with "all" that of all shards.
        """
        from fastps.checkpoint.save import save

        session = self.attachment.session
        limit = session.limit(seconds(timeout))
        deadline = deadline_after(limit)
        saving = save(self.attachment, path, since, consistent, limit)
        if wait:
            saving.result(left_until(deadline))
        return saving

    def save_every(
        self,
        directory: Any,
        *,
        steps: int | None = None,
        seconds: float | None = None,
        keep: int = 3,
        incremental: bool = False,
        consistent: str = "shard",
        timeout: float | None = None,
    ) -> PeriodicSaves:
        """Saves the server again and again into a directory, as ``step-N``, from a thread of this process.

        Parameters
        ----------
        directory : str or path
            Made if it is not there. `fastps.restore` of it takes the newest checkpoint.
        steps : int
            Save when a shard, or a table on one, has had so many updates since the last save. Either this,
        seconds : float
            or save so often, if there were updates.
        keep : int
            Older checkpoints in the directory than the newest `keep` are removed, also those of earlier runs.
        incremental : bool
            Each save shares what has not changed with the one before: see `since` of `save`.
        consistent : {"shard", "all"}
            See `save`.
        timeout : float, optional
            Seconds for each save. One that takes longer, also since its process is stopped, has failed.

        Returns
        -------
        PeriodicSaves
            ``saved``, ``error`` and ``stop()``; also for a ``with`` block. It ends with the server too.

        Raises
        ------
        OptionError, FileError
            Nothing was started. A save that fails later is logged and kept as ``error``; training goes on.
        """
        from fastps.checkpoint.periodic import periodic_saves

        return periodic_saves(self, directory, steps, seconds, keep, incremental, consistent, timeout)

    def view(self) -> View:
        """Read-only arrays on the parameters themselves, for a ``with`` block: no copy, no lock. Live memory; under
        `BSP` the parameters of the newest round, which do not change. See `fastps.View`.

        Raises SplitError when shards are on other nodes. Cost: microseconds, whatever the size.
        """
        return (self.attachment.arrays or self.attachment.attach()).view()

    @property
    def hyper(self) -> Any:
        """The hyper-parameters as they are now, by name; with several rules, such a dict for each pattern and each
        table. None stands for a schedule. Cost: a few loads; a call to another node when no shard is on this one."""
        attachment, spec = self.attachment, self.attachment.spec
        by_pattern: dict[str, Any] = {}
        if spec.structure.leaves:
            by_pattern |= (attachment.arrays or attachment.attach()).hyper(None)
        by_pattern |= {name: TableReading(attachment, i).hyper for name, i in spec.table_names.items()}
        return by_pattern if len(by_pattern) > 1 else next(iter(by_pattern.values()))

    @property
    def versions(self) -> tuple[int, ...]:
        """The update count of each shard: pushes that have begun on it, or rounds that have been applied.

        Cost: a load per shard; for shards elsewhere a call per node.
        """
        return self.attachment.session.versions(None)

    def stats(self, *, timeout: float | None = None) -> ServerStats:
        """Counters of every shard: operations, bytes, retries, lock waits, pushes interrupted by deaths."""
        return self.attachment.session.stats(seconds(timeout))

    def _only_table(self) -> int:
        """The number of the only table."""
        names = self.attachment.spec.table_names
        if len(names) != 1:
            raise NamesError(f"table: expected a server with one table, it has {list(names)}; use ps[name]")
        return next(iter(names.values()))

    @property
    def num_shards(self) -> int:
        return len(self.attachment.spec.plans)

    @property
    def name(self) -> str | None:
        return self.attachment.spec.name

    @property
    def node_ids(self) -> tuple[str, ...]:
        """Ray's id of each shard's node."""
        spec = self.attachment.spec
        return tuple(spec.node_of(shard).node_id for shard in range(len(spec.plans)))

    def __repr__(self) -> str:
        spec = self.attachment.spec
        parts = [f"{spec.structure}, {spec.rules_label}"] if spec.structure.leaves else []
        tables = [f"{i.name}: {i}, {i.rule.label}" for i in spec.tables if i.counts_for is None]
        parts += [few_of(tables, len(tables), 4)] if tables else []
        closed = ", closed" if self.attachment.closed else ""
        return f"<{type(self).__name__} {'; '.join(parts)} on {self.num_shards} shards{closed}>"
