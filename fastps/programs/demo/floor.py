"""What fastps is compared with: a parameter server that is one plain Ray actor."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray


@ray.remote(num_cpus=0)
class PlainActor:
    """A float32 vector, and two methods. What one writes when a few lines are to do."""

    def __init__(self, params: np.ndarray[Any, np.dtype[Any]]) -> None:
        self.params = params.copy()  # what Ray hands over is read-only

    def get_params(self) -> np.ndarray[Any, np.dtype[Any]]:
        return self.params

    def update_params(self, update: np.ndarray[Any, np.dtype[Any]]) -> None:
        self.params += update
