# The one place that turns the core's codes into exceptions.

import errno
import os

from fastps import errors


def process_of(uint32_t tid):
    """Names the process of this machine that a thread belongs to, for messages."""
    if tid == 0:
        return "a process that has released it meanwhile"
    try:
        with open(f"/proc/{tid}/status") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except OSError:
        return f"thread {tid}, which is gone"
    return f"process {fields['Tgid']} ({fields['Name']}, state {fields['State']})"


cdef object exception_of(fps_status status, str where, int code=0):
    if status == FPS_CLOSED:
        return errors.ClosedError(f"{where}: the server was closed; create a new one")
    if status == FPS_OWNER_DIED:
        return errors.ShardDiedError(
            f"{where}: the process that owns the shard is gone, killed or with the program that created the server, and "
            "its parameters with it; create the server again")
    if status == FPS_FULL:
        return errors.SessionsExhaustedError(
            f"{where}: every session is taken by a live process, which keeps one for each thread that it ever had at work at "
            f"the same moment as others; end processes that had many, or create the server with a larger max_sessions")
    if status == FPS_PROCESS_FULL:
        return errors.SessionsExhaustedError(
            f"{where}: this process holds 1,900 sessions, one for each shard and each thread that worked at the same moment as "
            f"others, and the kernel cleans up no more after a process; let fewer threads work at once in it, or close servers")
    if status == FPS_BUSY:
        return errors.WaitTimeoutError(f"{where}: it is busy")
    if status == FPS_EXPELLED:
        return errors.WorkerExpelledError(f"{where}: this worker was expelled")
    if status == FPS_NO_MEMORY:
        return errors.ArenaMemoryError(f"{where}: the operating system refused the memory: {os.strerror(code)}")
    if status == FPS_BAD_DECISION:
        return errors.ArenaFormatError(
            f"{where}: a message names a worker that the server has no room for: it was damaged on its way, or comes from "
            f"another server; nothing was done")
    if status in (FPS_TRUNCATED, FPS_BAD_MAGIC, FPS_BAD_HEADER):
        found = {FPS_TRUNCATED: "shorter than it says", FPS_BAD_MAGIC: "something else", FPS_BAD_HEADER: "damaged"}
        return errors.ArenaFormatError(f"{where}: expected an arena, found a file that is {found[status]}")
    if status == FPS_BAD_VERSION:
        return errors.ArenaFormatError(
            f"{where}: expected an arena of format version {FPS_FORMAT_VERSION}, found another one; use the same "
            f"release of fastps in all processes")
    if status == FPS_WRONG_ARENA:
        return errors.ShardDiedError(f"{where}: its process is gone, another arena has taken its place")
    if status == FPS_NOT_READY:
        return errors.ArenaError(errno.EAGAIN, f"{where}: its creator has not finished")
    if status == FPS_BROKEN_LOCK:
        return errors.ArenaError(errno.ENOTRECOVERABLE, f"{where}: a lock is broken; create the server again")
    hint = "; raise the limit of open files (ulimit -n), or close servers" if code in (errno.EMFILE, errno.ENFILE) else ""
    return errors.ArenaError(code, f"{where}: {os.strerror(code)}{hint}")
