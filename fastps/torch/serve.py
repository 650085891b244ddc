"""A server of a model's parameters."""

from __future__ import annotations

from typing import Any

from fastps.server.handle import ParameterServer
from fastps.torch.parameters import trained


def serve(model: Any, **options: Any) -> ParameterServer:
    """A server of the parameters of a model that require grad, under their names; tied ones once.

    Parameters
    ----------
    model : torch.nn.Module
        On the CPU. Its values are copied. What is frozen, and buffers such as those of BatchNorm, are not served: each
        worker's model has its own.
    options
        Those of `fastps.ParameterServer`: ``rule=fastps.Adam(1e-3)``, ``num_shards=``, ``consistency=``, and so on.

    Raises
    ------
    NamesError
        `model` is none, or has nothing to train.
    DtypeError
        A parameter is not on the CPU.

    Notes
    -----
    Models of half precision are stored as float32, and pulled in their own type. See `ParameterServer` for the rest.
    """
    return ParameterServer(dict(trained(model)), **options)
