"""The recommender beside the SVD of scikit-surprise: the same split, the same number of factors; error and time.

    python bench/recommend.py [--seeds 1,2,3] [--runs 3] [--dim 50]

The SVD trains with every setting of a list, and what counts is the one with the smallest error on the test ratings
themselves: that favours the SVD. The recommender trains as `fastps recommend` does, whatever the seed. Its runs are not
alike, because nobody waits for anybody: the largest error counts, and the median time. Times are of the training alone:
of `fit`, and of the slowest worker from before its first step to after its last.

Without scikit-surprise (`pip install 'fastps[peers]'`) the recommender is measured alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import ray

import fastps
from bench.report import Report, check
from bench.timing import human_time
from fastps.recommend.evaluate import evaluate, rmse
from fastps.recommend.model import tables
from fastps.recommend.movielens import MovieLens, movielens
from fastps.recommend.settings import Settings
from fastps.recommend.train import train

# Of the SVD: learning rate, penalty, epochs. The first are its defaults; the others are around the best that was found
# for 32, 50 and 100 factors.
SVD_SETTINGS = [
    (0.005, 0.02, 20),
    (0.02, 0.1, 20),
    (0.02, 0.1, 30),
    (0.015, 0.08, 30),
    (0.015, 0.1, 40),
    (0.01, 0.08, 40),
    (0.01, 0.1, 60),
]


@dataclass(frozen=True)
class Outcome:
    """Error on the test ratings in stars, seconds of training, and what was trained."""

    rmse: float
    seconds: float
    how: str


class Silent:
    def update(self, ratings: int, squares: float, ratings_per_second: float) -> None:
        pass


def ours(data: MovieLens, settings: Settings, runs: int) -> Outcome:
    errors, seconds = [], []
    for _ in range(runs):
        with fastps.ParameterServer(tables(settings.dim, settings.seed), num_shards=settings.shards) as server:
            training = train(server, data.train, settings, Silent())
            check(training.ratings == settings.epochs * len(data.train), "every rating is trained on")
            errors.append(evaluate(server, data).model)
            seconds.append(training.seconds)
    how = f"{settings.epochs} epochs, batches of {settings.batch}, {settings.workers} workers, {settings.shards} shards"
    return Outcome(max(errors), float(np.median(seconds)), how)


def svd(data: MovieLens, dim: int, seed: int, runs: int) -> Outcome:
    """The best setting, by its error on the test ratings."""
    import pandas
    from surprise import SVD, Dataset, Reader

    train = data.train
    frame = pandas.DataFrame({"user": train.users, "movie": train.movies, "stars": train.stars.astype(float)})
    trainset = Dataset.load_from_df(frame, Reader(rating_scale=(0.5, 5.0))).build_full_trainset()

    def fit(lr: float, penalty: float, epochs: int) -> Outcome:
        model = SVD(n_factors=dim, n_epochs=epochs, lr_all=lr, reg_all=penalty, random_state=seed)
        began = time.perf_counter()
        model.fit(trainset)
        seconds = time.perf_counter() - began
        pairs = zip(data.test.users.tolist(), data.test.movies.tolist(), strict=True)
        error = rmse(np.array([model.predict(user, movie).est for user, movie in pairs]), data.test.stars)
        how = f"SVD, {epochs} epochs, learning rate {lr:g}, penalty {penalty:g}"
        print(f"  {how:<50} RMSE {error:.4f} in {human_time(seconds)}", flush=True)
        return Outcome(error, seconds, how)

    found = [(fit(*setting), setting) for setting in SVD_SETTINGS]
    best, setting = min(found, key=lambda pair: pair[0].rmse)
    again = [fit(*setting).seconds for _ in range(runs - 1)]
    return replace(best, seconds=float(np.median([best.seconds, *again])))


def compare(report: Report, data: MovieLens, settings: Settings, runs: int, with_svd: bool) -> None:
    report.head(
        f"Seed {settings.seed}, {settings.dim} factors: {len(data.train):,} ratings, {len(data.test):,} to test"
    )
    other = svd(data, settings.dim, settings.seed, runs) if with_svd else None
    own = ours(data, settings, runs)
    size = 4 * (settings.dim + 1) * (len(np.unique(data.train.users)) + len(np.unique(data.train.movies)))
    print(f"  {'fastps, ' + own.how}: RMSE {own.rmse:.4f} in {human_time(own.seconds)}")
    if other is None:
        report.add("alone", size, f"test RMSE, seed {settings.seed}", f"{own.how}", own.rmse)
        report.add("alone", size, f"training, seed {settings.seed}, s", f"{own.how}", own.seconds)
        return
    shown = f"{own.rmse:.4f}, SVD {other.rmse:.4f}"
    above = 1e3 * (own.rmse - other.rmse)
    report.add("error", size, f"RMSE above SVD, seed {settings.seed}, 1/1000", shown, above, most=5)
    shown = f"{human_time(own.seconds)}, SVD {human_time(other.seconds)}"
    report.add("time", size, f"training / SVD, seed {settings.seed}", shown, own.seconds / other.seconds, most=2)


def main() -> int:
    usual = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3", help="of split and first rows (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="trainings of each, for a seed (%(default)s)")
    for name in ("dim", "epochs", "batch", "workers", "shards"):
        parser.add_argument(f"--{name}", type=int, default=getattr(usual, name), help="%(default)s")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with_svd = importlib.util.find_spec("surprise") is not None
    if not with_svd:
        print("scikit-surprise is not installed (pip install 'fastps[peers]'): the recommender is measured alone")
    ray.init("local", include_dashboard=False, log_to_driver=False)
    report = Report()
    for seed in map(int, options.seeds.split(",")):
        settings = Settings(options.dim, options.epochs, options.batch, options.workers, options.shards, seed)
        compare(report, movielens(seed), settings, options.runs, with_svd)
    ray.shutdown()
    return report.end(options.json)


if __name__ == "__main__":
    sys.exit(main())
