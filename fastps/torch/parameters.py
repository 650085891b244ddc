"""The parameters of a model that are trained on a server, by their names."""

from __future__ import annotations

from typing import Any

import torch

from fastps.arrays.interchange import as_array
from fastps.arrays.types import Array
from fastps.errors import DtypeError, NamesError, ShapeError
from fastps.messages import few


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    """Those that require grad, tied ones once. A model that was compiled has the names of the one that it was before.

    Raises NamesError if there is none."""
    if not isinstance(model, torch.nn.Module):
        raise NamesError(f"expected a torch.nn.Module, got {type(model).__name__}; pass the model itself")
    plain = getattr(model, "_orig_mod", model)
    found = {name: parameter for name, parameter in plain.named_parameters() if parameter.requires_grad}
    if not found:
        raise NamesError(f"{type(plain).__name__} has no parameter that requires grad; there is nothing to train")
    return found


def memory_of(tensor: torch.Tensor, name: str) -> Array:
    """The memory of a tensor as a numpy array. Raises DtypeError where there is none in this process."""
    if tensor.device.type != "cpu":
        raise DtypeError(f"`{name}` is on {tensor.device}: the server reads and writes memory of the CPU; train there")
    if tensor.layout != torch.strided:
        raise DtypeError(
            f"the gradient of `{name}` is sparse, and would be read as a dense one; use sparse=False, or a fastps.Table"
        )
    return as_array(tensor, f"`{name}`")


def require_same(parameters: dict[str, torch.nn.Parameter], server: Any) -> None:
    """Raises NamesError or ShapeError unless a server has these parameters."""
    leaves = {leaf.name: leaf for leaf in server.attachment.spec.structure.leaves if leaf.trains}
    missing, unexpected = [n for n in leaves if n not in parameters], [n for n in parameters if n not in leaves]
    if missing or unexpected:
        told = " and ".join(f"{what} {few(n)}" for what, n in (("lacks", missing), ("has also", unexpected)) if n)
        raise NamesError(
            f"Optimizer: the model is not the one that is served: it {told}; create the server by "
            f"fastps.torch.serve(model), and the model as it was there, with the same parameters frozen"
        )
    for name, parameter in parameters.items():
        if tuple(parameter.shape) != leaves[name].shape:
            raise ShapeError(
                f"Optimizer: `{name}` of the model is {tuple(parameter.shape)}, that of the server {leaves[name].shape}"
            )
