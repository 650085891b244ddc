"""The worker class of each consistency policy."""

from __future__ import annotations

from fastps.client.attach import Attachment
from fastps.consistency import BSP, SSP, Async, Consistency, LocalSGD
from fastps.transport.contract import Membership
from fastps.workers.local import LocalWorker
from fastps.workers.rounds import RoundWorker
from fastps.workers.worker import Worker

WORKERS: dict[type[Consistency], type[Worker]] = {
    Async: Worker,
    SSP: Worker,
    BSP: RoundWorker,
    LocalSGD: LocalWorker,
}


def worker_of(attachment: Attachment, membership: Membership) -> Worker:
    """A worker's session for a membership that has joined."""
    return WORKERS[type(attachment.spec.consistency)](attachment, membership)
