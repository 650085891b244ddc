"""Opening arenas that are not what they should be, and windows on those that are."""

import ctypes
import fcntl
import gc
import os
import signal

import numpy as np
import pytest

from fastps._core import Arena
from fastps.errors import ArenaError, ArenaFormatError, ArenaMemoryError, ClosedError, FastPSError, ShardDiedError
from tests.support.leftovers import own_arenas
from tests.support.local_server import (
    ARENA_ID_AT,
    CHECKSUM_AT,
    FORMAT_VERSION_AT,
    N_SESSIONS_AT,
    PARAMS_BYTES_AT,
    READY_AT,
    STRIPE_BYTES_AT,
    TOTAL_BYTES_AT,
    LocalServer,
    word,
)  # fmt: skip

F_ADD_SEALS, F_GET_SEALS, SEAL_SEAL, SEAL_SHRINK, SEAL_GROW = 1033, 1034, 1, 2, 4
ID = bytes(range(16))


@pytest.fixture
def arena():
    arena = Arena.create(ID, "shard 0 of 1", 0, 1, 100_000, 4, True)
    yield arena
    arena.retire()


def copy_of(arena, change=lambda data: data, seals=SEAL_SHRINK | SEAL_GROW):
    """A memfd with the arena's bytes, changed."""
    data = change(bytearray(os.pread(arena.fd, arena.total_bytes, 0)))
    fd = os.memfd_create("copy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, F_ADD_SEALS, seals)
    return fd


def opened(fd, arena_id=ID):
    """Opens `fd`; gives it back to the caller's care when that fails, as open promises."""
    try:
        return Arena.open(fd, arena_id, "shard 0 of 1")
    except BaseException:
        os.fstat(fd)  # still open
        os.close(fd)
        raise


def number(at, value, size=4, checksum=False):
    """A change that writes one number, and mends the checksum if asked."""

    def change(data):
        data[at : at + size] = value.to_bytes(size, "little")
        if checksum:
            digest = 0xCBF29CE484222325
            for byte in data[:CHECKSUM_AT]:
                digest = (digest ^ byte) * 0x100000001B3 % 2**64
            data[CHECKSUM_AT : CHECKSUM_AT + 8] = digest.to_bytes(8, "little")
        return data

    return change


def test_a_sealed_copy_of_an_arena_opens(arena):
    """What the refusals below differ from."""
    assert opened(copy_of(arena)).total_bytes == arena.total_bytes
    assert opened(copy_of(arena, number(N_SESSIONS_AT, 4, checksum=True))).total_bytes == arena.total_bytes


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda data: data[: len(data) // 2], "shorter"),
        (lambda data: data[:-1], "shorter"),
        (lambda data: data[:100], "shorter"),
        (lambda data: data[:0], "shorter"),
        (lambda data: bytearray(len(data)), "something else"),
        (lambda data: bytearray(os.urandom(len(data))), "something else"),
        (number(0, 0), "something else"),
        (number(FORMAT_VERSION_AT, 99), "format version"),
        (number(FORMAT_VERSION_AT, 99, checksum=True), "format version"),
        (number(N_SESSIONS_AT, 5), "damaged"),
        (number(N_SESSIONS_AT, 5, checksum=True), "damaged"),
        (number(N_SESSIONS_AT, 0, checksum=True), "damaged"),
        (number(N_SESSIONS_AT, 2**32 - 1, checksum=True), "damaged"),
        (number(STRIPE_BYTES_AT, 0, 8, checksum=True), "damaged"),
        (number(STRIPE_BYTES_AT, 3, 8, checksum=True), "damaged"),
        (number(PARAMS_BYTES_AT, 2**63, 8, checksum=True), "damaged"),
        (number(TOTAL_BYTES_AT, 4096, 8, checksum=True), "damaged"),
    ],
)
def test_bytes_that_are_no_whole_arena_are_refused(arena, change, word):
    with pytest.raises(ArenaFormatError, match=word):
        opened(copy_of(arena, change))


def test_any_flipped_bit_of_the_header_is_refused(arena, rng):
    for bit in rng.choice(CHECKSUM_AT * 8 + 64, 60, replace=False):

        def flip(data, bit=int(bit)):
            data[bit // 8] ^= 1 << bit % 8
            return data

        with pytest.raises((ArenaFormatError, ShardDiedError)):
            opened(copy_of(arena, flip))


def test_another_arena_in_the_same_place_is_a_shard_that_died(arena):
    with pytest.raises(ShardDiedError, match="another arena has taken its place"):
        opened(copy_of(arena), bytes(16))
    with pytest.raises(ShardDiedError):
        opened(copy_of(arena, number(ARENA_ID_AT, 99, 8, checksum=True)))


def test_memory_that_could_shrink_is_refused(arena):
    with pytest.raises(ArenaFormatError):
        opened(copy_of(arena, seals=0))


def test_an_ordinary_file_is_refused(arena, tmp_path):
    (tmp_path / "arena").write_bytes(os.pread(arena.fd, arena.total_bytes, 0))
    with pytest.raises(ArenaFormatError):
        opened(os.open(tmp_path / "arena", os.O_RDWR))


def test_an_arena_that_its_creator_has_not_finished_is_refused(arena):
    with pytest.raises(ArenaError, match="not finished"):
        opened(copy_of(arena, number(READY_AT, 0)))


def test_a_descriptor_that_is_not_open_raises_arena_error():
    with pytest.raises(ArenaError):
        Arena.open(987, ID, "shard 0 of 1")


def test_an_id_of_another_length_is_refused(arena):
    with pytest.raises(ValueError, match="16 bytes"):
        Arena.open(0, b"short", "x")
    with pytest.raises(ValueError, match="16 bytes"):
        Arena.create(b"short", "x", 0, 1, 100, 1, True)


def test_an_arena_is_sealed_against_shrinking_and_growing(arena):
    seals = fcntl.fcntl(arena.fd, F_GET_SEALS)
    assert seals & SEAL_SHRINK
    assert seals & SEAL_GROW
    with pytest.raises(PermissionError):
        os.ftruncate(arena.fd, 4096)


def test_an_arena_has_all_its_memory_from_the_start(arena):
    assert os.fstat(arena.fd).st_blocks * 512 >= arena.total_bytes == os.fstat(arena.fd).st_size
    assert arena.total_bytes == Arena.size(100_000, 4)


def test_an_arena_cannot_be_made_by_its_class():
    with pytest.raises(TypeError, match=r"Arena\.create"):
        Arena()


@pytest.mark.parametrize("params_bytes", [1 << 47, 1 << 62])
def test_an_arena_of_an_absurd_size_raises_a_memory_error(params_bytes):
    with pytest.raises(ArenaMemoryError):
        Arena.create(ID, "shard 0 of 1", 0, 1, params_bytes, 4, True)


@pytest.mark.parametrize(("max_sessions", "stripe_bytes"), [(0, 0), (4097, 0), (4, 100), (4, 5000), (4, 3 << 20)])
def test_what_no_arena_can_be_raises_a_fastps_error(max_sessions, stripe_bytes):
    with pytest.raises(FastPSError):
        Arena.create(ID, "x", 0, 1, 100_000, max_sessions, True, stripe_bytes)


@pytest.mark.parametrize("params_bytes", [4, 4096, 131072, 131076, 3_000_000])
@pytest.mark.parametrize("max_sessions", [1, 7, 128])
def test_parameters_keep_away_from_user_arrays_modulo_a_page(params_bytes, max_sessions):
    arena = Arena.create(ID, "x", 0, 1, params_bytes, max_sessions, True)
    address = np.frombuffer(arena.window(0, 4), np.uint8).ctypes.data
    assert address % 4096 == 2048


def test_a_retired_arena_is_closed_for_everybody_and_has_given_its_memory_back(arena):
    peer = opened(os.dup(arena.fd))
    peer.check()
    before = os.fstat(arena.fd).st_blocks
    arena.retire()
    arena.retire()
    for one in (peer, arena):
        with pytest.raises(ClosedError, match="shard 0 of 1"):
            one.check()
    assert os.fstat(arena.fd).st_blocks * 512 <= before * 512 - 90_000


def test_an_arena_that_is_dropped_by_its_owner_is_closed():
    server = LocalServer.create(np.zeros(10))
    peer = opened(os.dup(server.arenas[0].fd), server.ids[0])
    del server
    gc.collect()
    with pytest.raises(ClosedError):
        peer.check()


def test_an_arena_whose_owner_was_killed_is_a_shard_that_died(arena):
    end, child_end = os.pipe()
    child = os.fork()
    if child == 0:  # creates an arena, then waits to be killed
        theirs = Arena.create(ID, "theirs", 0, 1, 5000, 2, True)
        os.write(child_end, str(theirs.fd).encode())
        signal.pause()
        os._exit(0)
    peer = Arena.open(os.open(f"/proc/{child}/fd/{int(os.read(end, 20))}", os.O_RDWR), ID, "shard 5 of 6")
    peer.check()
    os.kill(child, 9)
    os.waitpid(child, 0)
    os.close(end)
    os.close(child_end)
    with pytest.raises(ShardDiedError, match="shard 5 of 6"):
        peer.check()


def test_windows_are_read_only_live_and_bounded():
    server = LocalServer.create(np.arange(10.0))
    (arena,) = server.arenas
    values = np.frombuffer(arena.window(16, 24), np.float64)
    assert values.tolist() == [2, 3, 4]
    assert not values.flags.writeable
    server.push_from(np.ones(10))
    assert values.tolist() == [3, 4, 5]
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1
    with pytest.raises(ValueError, match=r"WRITEABLE|writeable"):
        values.flags.writeable = True
    assert memoryview(arena.window(0, 8)).readonly
    with pytest.raises(TypeError, match="not writable"):
        (ctypes.c_char * 8).from_buffer(arena.window(0, 8))
    for position, nbytes in [(0, 81), (80, 1), (81, 0), (2**63, 8), (8, 2**64 - 8)]:
        with pytest.raises(IndexError, match="outside of the parameters"):
            arena.window(position, nbytes)
    assert bytes(arena.window(80, 0)) == b""


def test_a_window_keeps_the_memory_after_everything_else_is_gone():
    server = LocalServer.create(np.arange(100_000.0))
    (arena,) = server.arenas
    peer = opened(os.dup(arena.fd), server.ids[0])
    values = np.frombuffer(peer.window(0, 800_000), np.float64)
    slice_ = values[1000:2000]
    del values, peer
    gc.collect()
    assert slice_.sum() == np.arange(1000.0, 2000.0).sum()
    del server, arena
    gc.collect()
    assert slice_.sum() == 0  # given back: zeros, and no crash
    assert own_arenas() != []
    del slice_
    gc.collect()
    assert own_arenas() == []


def test_counters_begin_at_zero_and_count_what_happens():
    server = LocalServer.create(np.zeros(1000), num_shards=2)
    assert all(set(arena.counters().values()) == {0} for arena in server.arenas)
    out = np.empty(1000)
    server.push_from(np.ones(1000))
    server.pull_into(out)
    server.push_pull(np.ones(1000), out)
    for arena in server.arenas:
        found = arena.counters()
        assert (found["pushes"], found["pulls"], found["push_pulls"], found["version"]) == (1, 1, 1, 2)
        assert (found["bytes_read"], found["bytes_written"], found["sessions"]) == (8000, 8000, 1)
        assert arena.version == 2


def test_the_arena_says_what_it_is(arena):
    assert word(arena.fd, TOTAL_BYTES_AT) == arena.total_bytes
    assert word(arena.fd, STRIPE_BYTES_AT) == arena.stripe_bytes
    assert arena.owner
    assert arena.label == "shard 0 of 1"
