"""A network of two layers in numpy: 64 pixels, 128 rectified units, 10 digits.

The parameters, and the gradients, are one flat float32 vector with names for its parts. fastps stores the named parts
and the plain actor stores the vector, so neither has to convert.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Named = Mapping[str, Array]

LAYERS = (64, 128, 10)
SHAPES = {"w1": (64, 128), "b1": (128,), "w2": (128, 10), "b2": (10,)}
SIZE = sum(math.prod(shape) for shape in SHAPES.values())


def named(flat: Array) -> dict[str, Array]:
    """The parts of a flat vector by name. They are views: writing to a part writes to the vector."""
    parts, start = {}, 0
    for name, shape in SHAPES.items():
        stop = start + math.prod(shape)
        parts[name] = flat[start:stop].reshape(shape)
        start = stop
    return parts


def initial(seed: int) -> Array:
    """float32[SIZE]: normal weights scaled by each layer's inputs (He), zero biases."""
    flat = np.zeros(SIZE, np.float32)
    rng = np.random.default_rng(seed)
    for name, weights in named(flat).items():
        if name.startswith("w"):
            weights[...] = rng.normal(0.0, math.sqrt(2.0 / weights.shape[0]), weights.shape)
    return flat


def logits(params: Named, x: Array) -> tuple[Array, Array]:
    """The hidden layer and the ten outputs for images `x`."""
    hidden = np.maximum(x @ params["w1"] + params["b1"], 0.0)
    return hidden, hidden @ params["w2"] + params["b2"]


def loss_and_gradients(params: Named, x: Array, y: Array, grads: Named) -> float:
    """The mean cross-entropy of a batch; its gradients are written into `grads`."""
    hidden, scores = logits(params, x)
    scores -= scores.max(axis=1, keepdims=True)
    rows = np.arange(len(y))
    picked = scores[rows, y]
    error = np.exp(scores, out=scores)
    total = error.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(total[:, 0]) - picked))
    error /= total
    error[rows, y] -= 1.0
    error /= len(y)
    below = error @ params["w2"].T
    below *= hidden > 0.0
    np.matmul(hidden.T, error, out=grads["w2"])
    np.sum(error, axis=0, out=grads["b2"])
    np.matmul(x.T, below, out=grads["w1"])
    np.sum(below, axis=0, out=grads["b1"])
    return loss


def loss(params: Named, x: Array, y: Array) -> float:
    """The mean cross-entropy."""
    scores = logits(params, x)[1]
    scores -= scores.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(y)), y]))


def accuracy(params: Named, x: Array, y: Array) -> float:
    """The share of images that are recognised, from 0 to 1."""
    return float(np.mean(logits(params, x)[1].argmax(axis=1) == y))
