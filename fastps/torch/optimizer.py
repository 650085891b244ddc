"""An optimizer of torch whose step is a push_pull: the rule is applied where the parameters are served."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch

from fastps.arrays.types import Array
from fastps.client.future import Future
from fastps.errors import OptionError
from fastps.scalars import flag, whole
from fastps.server.handle import ParameterServer
from fastps.torch.parameters import memory_of, require_same, trained
from fastps.workers.worker import Worker


class Optimizer(torch.optim.Optimizer):
    """Trains a model on a server: `step` pushes its gradients and pulls the parameters, straight from ``.grad`` and
    into the parameters' memory.

    Parameters
    ----------
    model : torch.nn.Module
        As the one that is served. Its parameters are overwritten by those of the server, now and in each step.
    ps : ParameterServer
        Of `fastps.torch.serve`, or any with arrays of the names, shapes and dtypes of the model's parameters.
    worker : Worker, optional
        What ``ps.worker()`` has returned, where the consistency needs one.
    overlap : bool
        Each gradient is pushed while the backward pass goes on, as soon as it is there, and `step` waits for that. For
        one backward pass a step, whose gradients nobody changes afterwards: no accumulation, clipping or scaler.
    pull_every : int
        Parameters are pulled in each `pull_every`-th step; in between the model keeps its own.
    schedules : bool
        Whether hyper-parameters that are changed in ``param_groups``, as ``torch.optim.lr_scheduler`` does, are those
        of the server from the next step on. Of several workers, one has them.

    Raises
    ------
    NamesError, ShapeError
        The model is not the one that is served; it was not changed.
    DtypeError
        A parameter is not on the CPU.
    OptionError
        `overlap` goes with a worker, or a setting is out of range.

    Notes
    -----
    Parameters without a gradient are left alone; a step without any is one of the worker's, and pulls. ``zero_grad``,
    closures, accumulation, clipping and ``torch.amp.GradScaler`` work as with any optimizer. There is one group for
    each of the server's rules, or one; its hyper-parameters are those of the rule. Slots are on the server:
    `state_dict` has them from there.
    """

    def __init__(
        self,
        model: Any,
        ps: ParameterServer,
        *,
        worker: Worker | None = None,
        overlap: bool = False,
        pull_every: int = 1,
        schedules: bool = True,
    ) -> None:
        self._parameters = trained(model)
        require_same(self._parameters, ps)
        self._outs = {name: memory_of(parameter, name) for name, parameter in self._parameters.items()}
        self._overlap = flag("Optimizer overlap", overlap)
        if self._overlap and worker is not None:
            raise OptionError("Optimizer: overlap= pushes array by array, and a worker's push ends its step; omit one")
        self._pull_every = whole("Optimizer pull_every", pull_every, 1, 2**31)
        self._ps, self._worker, self._steps = ps, worker, 0
        self._schedules = flag("Optimizer schedules", schedules)
        self._under_way: list[Future] = []
        spec = ps.attachment.spec
        groups: list[dict[str, Any]] = []
        hyper = ps.attachment.arrays or ps.attachment.attach()
        numbers = hyper.hyper(None)
        for row, rule in enumerate(spec.rules):
            names = [leaf.name for i, leaf in enumerate(spec.structure.leaves) if spec.rule_of_leaf[i] == row]
            group = {"params": [self._parameters[name] for name in names if name in self._parameters]}
            groups.append({**group, **numbers[rule.pattern], "pattern": rule.pattern})
        groups = [group for group in groups if group["params"]]
        self._names = [[name for name in group if name not in ("params", "pattern")] for group in groups]
        # Schedulers ask the defaults which hyper-parameters there are.
        super().__init__(groups, {name: groups[0][name] for name in self._names[0]} if len(groups) == 1 else {})
        self._known = self._hyper()
        self._pull()
        if self._overlap:
            for name, parameter in self._parameters.items():
                parameter.register_post_accumulate_grad_hook(_pusher(weakref.ref(self), name))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Pushes the gradients, and pulls the parameters. Returns what `closure` does, if it is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._configure()
        self._steps += 1
        pulls = self._steps % self._pull_every == 0
        if self._overlap:
            self._finish_pushes()
            if pulls:
                self._pull()
            return loss
        grads = self._grads()
        place = self._ps if self._worker is None else self._worker
        whole = len(grads) == len(self._parameters)
        if whole and pulls:
            place.push_pull(grads, out=self._memory())
            return loss
        if grads:
            place.push(grads, partial=not whole)
        elif self._worker is not None:
            self._worker.end_step()
        if pulls:
            self._pull()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The state of the server, as tensors, and the groups."""
        state = {name: torch.from_numpy(value) for name, value in self._ps.state_dict().items()}
        groups = [{name: value for name, value in group.items() if name != "params"} for group in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Any) -> None:
        """Loads what `state_dict` returned into the server, and so into all of its workers at their next pull."""
        self._ps.load_state_dict(state_dict["state"])
        for group, loaded in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update(loaded)
        self._known = self._hyper()
        self._pull()

    def _hyper(self) -> list[dict[str, Any]]:
        """The hyper-parameters of the rules as the groups have them."""
        return [
            {name: group[name] for name in names} for group, names in zip(self.param_groups, self._names, strict=True)
        ]

    def _configure(self) -> None:
        """Tells the server which hyper-parameters have changed here, if they are those of this worker."""
        if not self._schedules:
            return
        for group, known in zip(self.param_groups, self._known, strict=True):
            changed = {name: group[name] for name in known if group[name] != known[name]}
            if changed:
                self._ps.configure(group["pattern"], **changed)
                known.update(changed)

    def _memory(self) -> dict[str, Array]:
        """That of the parameters, which may have been given another one."""
        for name, parameter in self._parameters.items():
            if parameter.data_ptr() != self._outs[name].ctypes.data:
                self._outs[name] = memory_of(parameter, name)
        return self._outs

    def _grads(self) -> dict[str, Array]:
        return {
            name: memory_of(parameter.grad, name)
            for name, parameter in self._parameters.items()
            if parameter.grad is not None
        }

    def _pull(self) -> None:
        (self._ps if self._worker is None else self._worker).pull(out=self._memory())

    def push_one(self, name: str, parameter: torch.Tensor) -> None:
        """With `overlap`, pushes the gradient of a parameter, which is there; torch calls it by a hook."""
        if parameter.grad is not None:
            if not self._under_way:  # the first of a step
                self._configure()
            grads = {name: memory_of(parameter.grad, name)}
            self._under_way.append(self._ps.push_async(grads, partial=True, copy=False))

    def _finish_pushes(self) -> None:
        under_way, self._under_way = self._under_way, []
        for future in under_way:
            future.result()


def _pusher(kept: weakref.ref[Optimizer], name: str) -> Callable[[torch.Tensor], None]:
    """What torch calls with a parameter that has its gradient. It keeps no optimizer alive."""

    def push(parameter: torch.Tensor) -> None:
        optimizer = kept()
        if optimizer is not None:
            optimizer.push_one(name, parameter)

    return push
