"""The rows of a table that are nearest to a vector: an exact search, batch by batch, to inspect what was learnt."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fastps.arrays.types import Array
from fastps.scalars import choice


def scores(rows: Array, vector: Array, metric: str) -> Array:
    """One score per row, larger is nearer: the inner product, the cosine, or the negative distance."""
    if metric == "euclidean":
        distances: Array = np.sqrt(np.square(rows - vector).sum(axis=1))
        return -distances
    products: Array = rows @ vector
    if metric == "cosine":
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows)) * np.sqrt(vector @ vector)
        np.divide(products, norms, out=products, where=norms > 0)
        products[norms == 0] = 0
    return products


METRICS = ("dot", "cosine", "euclidean")


def nearest(batches: Iterable[tuple[Array, Array]], vector: Array, k: int, metric: str) -> tuple[Array, Array]:
    """The keys and scores of the k nearest rows, nearest first; rows of equal score in the order of their keys."""
    choice("nearest metric", metric, METRICS)
    keys: Array | None = None
    best: Array = np.empty(0)
    for some, rows in batches:
        found = scores(rows, vector, metric)
        found[np.isnan(found)] = -np.inf
        all_keys = some if keys is None else np.concatenate([keys, some])
        all_scores = found if keys is None else np.concatenate([best, found])
        order = np.lexsort((all_keys, -all_scores))[:k]
        keys, best = all_keys[order], all_scores[order]
    return (np.empty(0, np.int64) if keys is None else keys), best
