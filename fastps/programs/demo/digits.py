"""The handwritten digits of scikit-learn: 1,797 grey images of 8 x 8 pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_digits

from fastps.programs.demo.network import Array

TEST_SHARE = 0.2


@dataclass(frozen=True)
class Digits:
    """Images and their labels.

    Attributes
    ----------
    train_x, test_x : float32[images, 64], from 0 to 1
    train_y, test_y : int64[images], from 0 to 9
    """

    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array


def digits(seed: int) -> Digits:
    """All images, shuffled by `seed`; a fifth of them is held out for the test."""
    bunch = load_digits()
    x = (bunch.data / 16.0).astype(np.float32)
    y = bunch.target.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(x))
    test, train = np.split(order, [round(len(x) * TEST_SHARE)])
    return Digits(x[train], y[train], x[test], y[test])
