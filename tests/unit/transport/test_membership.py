"""A worker's membership through a coordinator, in this process, that dies or cannot be reached."""

import asyncio
import threading
import time

import numpy as np
import pytest

from fastps import SSP
from fastps.errors import (
    ClosedError,
    RayRequiredError,
    ShardDiedError,
    UnavailableError,
    WaitTimeoutError,
    WorkerExpelledError,
)
from fastps.shard.coordinator import Coordinator
from fastps.testing.local import LocalServer
from fastps.transport import message, values
from fastps.transport.loopback import Arrived, Loopback
from fastps.transport.membership import RemoteMembership
from tests.support.waiting import wait_until

LONG = 30.0  # a guard against hanging
SOON = 1.0  # on a quiet machine
LEASE = 0.3


class Host:
    """The process of a coordinator, and the carrier to it."""

    limits = Loopback.limits

    def __init__(self, spec) -> None:
        self.coordinator, self.alive, self.errors, self.verbs = Coordinator(spec), True, [], []
        self.turn = threading.Lock()

    def send(self, messages):
        if not self.alive:
            raise ShardDiedError("its process is gone")
        if self.errors:
            raise self.errors.pop(0)
        ((head, *parts),) = messages
        header = message.Header.unpack(head)
        inbox = message.Inbox(header.nbytes)
        inbox.add(memoryview(head)[header.size :], parts)
        self.verbs.append(values.unpack(inbox.payload())[0])
        with self.turn:
            return Arrived([asyncio.run(self.coordinator.serve(head, *parts))])

    def hears_three_more(self):
        before = self.verbs.count("renew")
        wait_until(lambda: self.verbs.count("renew") >= before + 3, SOON, "three words of the worker")


class World:
    """A server whose coordinator is found, and started again where it has died."""

    def __init__(self, spec) -> None:
        self.spec, self.hosts, self.found, self.error = spec, [Host(spec)], 0, None

    @property
    def host(self):
        return self.hosts[-1]

    def find(self, timeout, died):
        if self.error is not None:
            raise self.error
        if died:
            self.found += 1
            time.sleep(0.05)
            self.hosts.append(Host(self.spec))
        return self.host


@pytest.fixture
def world():
    with LocalServer(np.zeros(4), consistency=SSP(1, workers=2, lease=LEASE)) as server:
        yield World(server.spec)


@pytest.fixture
def member(world):
    member = RemoteMembership(world.spec, 1, LONG, world.find)
    yield member
    world.error = None
    member.leave()
    wait_until(lambda: not lease_threads(), SOON, "the end of the thread")


def lease_threads():
    return [thread for thread in threading.enumerate() if thread.name == "fastps lease"]


def test_a_worker_that_computes_is_taken_over_by_a_new_coordinator(world, member):
    world.host.alive = False
    wait_until(lambda: len(world.hosts) == 2, SOON, "another coordinator")
    world.host.hears_three_more()
    assert world.host.verbs.count("adopt") == 1
    member.end_step(0, LONG)
    assert member.state()[0] == 1
    assert (world.found, world.host.verbs.count("adopt"), world.host.verbs.count("rejoin")) == (1, 1, 0)


@pytest.mark.parametrize("error", [WaitTimeoutError, UnavailableError, WorkerExpelledError, RuntimeError])
def test_an_error_that_passes_does_not_end_the_lease(world, member, error):
    world.host.errors.append(error("a word was lost"))
    world.host.hears_three_more()
    assert world.found == 0


@pytest.mark.parametrize("error", [RayRequiredError, ClosedError])
def test_the_thread_ends_with_ray_and_with_the_server(world, member, error):
    world.host.errors.append(error("a word was lost"))
    wait_until(lambda: not lease_threads(), SOON, "the end of the thread")


def test_the_thread_ends_when_the_shard_that_starts_coordinators_is_gone(world, member):
    world.error = ShardDiedError("shard 0 is gone")
    world.host.alive = False
    wait_until(lambda: not lease_threads(), SOON, "the end of the thread")


def test_the_thread_outlives_a_shard_that_cannot_be_reached_for_a_while(world, member):
    world.error = UnavailableError("the connection was lost")
    world.host.alive = False
    time.sleep(LEASE)
    world.error = None
    wait_until(lambda: len(world.hosts) == 2, SOON, "another coordinator")
    world.host.hears_three_more()


def test_a_worker_and_its_lease_find_one_new_coordinator_at_once(world, member):
    for number in range(1, 6):
        world.host.alive = False
        threads = [threading.Thread(target=member.end_step, args=(number - 1, LONG)) for _ in range(3)]
        threads.append(threading.Thread(target=member.renew, args=(LONG,)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert member.state()[0] == number
        assert world.found == number
