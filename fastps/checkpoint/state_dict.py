"""The arrays of a checkpoint as a `state_dict` of torch, which is loaded with this module: import it only where such a
file is written.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import torch

from fastps.arrays.types import Array
from fastps.checkpoint.export import NamedArrays


def write_state_dict(path: Path, named: NamedArrays) -> None:
    """Writes a new file that ``torch.load(path, weights_only=True)`` reads: a dict of tensors. An array with several
    names is one tensor with several names. Raises OSError."""
    tensors = {id(array): _tensor(array) for array in named.arrays.values()}
    state = {name: tensors[id(array)] for name, array in named.arrays.items()}
    with path.open("xb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # in place of what has ended a write, be it an OSError or Ctrl-C
            raise error.__context__ or error from None
        file.flush()
        os.fsync(file.fileno())


def _tensor(array: Array) -> torch.Tensor:
    """On the memory of the array, which nobody changes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the memory of a file is read-only
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)
