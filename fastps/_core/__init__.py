"""The compiled core: arenas in shared memory and the operations on them. Not public; see csrc/ for the contract."""

from fastps._core.core import (
    BLOCK_BYTES,
    Arena,
    Board,
    Decision,
    Group,
    GroupJob,
    Held,
    Job,
    Lane,
    Member,
    Outcome,
    Queue,
    Rest,
    TableGroup,
    TableLane,
    all_finite,
    copy,
    crc32c,
    global_norm,
    hash_of,
    job_if_fits,
    life_generation,
    outcome_from,
    process_of,
    shards_of,
    table_initial,
    table_row_bytes,
)

__all__ = [
    "BLOCK_BYTES", "Arena", "Board", "Decision", "Group", "GroupJob", "Held", "Job", "Lane", "Member", "Outcome",
    "Queue", "Rest", "TableGroup", "TableLane", "all_finite", "copy", "crc32c", "global_norm", "hash_of", "job_if_fits",
    "life_generation", "outcome_from", "process_of", "shards_of", "table_initial", "table_row_bytes",
]  # fmt: skip
