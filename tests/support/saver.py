"""A program that saves a server without Ray, in a new process each time: to be killed, stopped, or let down by the
system at any call, quickly. What it runs is the code of `save` and of the writer; of Ray's part, `InThisProcess`.

`Saver` starts it. It reads a pickled ServerSpec, then requests as lines of JSON, and answers each with a line when the
process of the request has ended, or was stopped. Ends with its input.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

from fastps.checkpoint import save as saves
from fastps.checkpoint import saving as savings
from fastps.checkpoint.load import load
from fastps.checkpoint.series import remove
from fastps.client.attach import Attachment
from fastps.errors import FastPSError

NOBODY = 65534
CLONE_NEWNS, MS_REC_PRIVATE = 0x20000, 1 << 14 | 1 << 18


class Saver:
    """The program, seen from a test. `Answer`s are dictionaries: `signal` that ended the process, or 0; the class of
    the `error` that it raised, or None, whether that is `typed`, its `text`; and `stopped`."""

    def __init__(self, spec, environment) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )  # fmt: skip
        self._process.stdin.write(pickle.dumps(spec))

    def ask(self, act, path, **options):
        """Acts: "save", "load" or "remove" a path; "give up" a hidden directory. Options: `since`, of a save; `user`,
        who does it; `file_bytes`, the largest file that it may write; `disk_bytes`, of a file system that only it sees,
        at the path's directory: the answer has what is `left` there."""
        return self._send({"act": act, "path": str(path), **options})

    def go_on(self):
        """With what was stopped."""
        return self._send({})

    def _send(self, request):
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class InThisProcess:
    """Ray's part in a save: calls are executed where and when they are made."""

    def require(self, what):
        pass

    def generated(self, server_id, what):
        return what

    def start_on(self, node_id, cls, concurrency, name):
        return lambda: Actor(cls())

    def end(self, actor, seconds=0.0):
        pass

    def get(self, reference, timeout, what):
        return reference.future().result(timeout)


class Actor:
    def __init__(self, instance):
        self._instance = instance

    def __getattr__(self, name):
        return Method(getattr(self._instance, name))


class Method:
    def __init__(self, function):
        self._function = function

    def remote(self, *arguments):
        future = Future()
        try:
            values = [value.future().result() if isinstance(value, Reference) else value for value in arguments]
            future.set_result(self._function(*values))
        except Exception as error:
            future.set_exception(error)
        return Reference(future)


class Reference:
    def __init__(self, future):
        self._future = future

    def future(self):
        return self._future


def mount(folder, nbytes):
    """A file system of this size that this process alone sees."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = f"size={nbytes}".encode()
    libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
    if libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, MS_REC_PRIVATE, None):
        raise PermissionError(ctypes.get_errno(), "unshare")
    if libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, size):
        raise PermissionError(ctypes.get_errno(), "mount")


def act(spec, request, path):
    attachment = Attachment(spec)
    attachment.attach()
    if "disk_bytes" in request:
        mount(path.parent, request["disk_bytes"])
    if "file_bytes" in request:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"],) * 2)
    if "user" in request:
        os.setgroups([])
        os.setresgid(*[request["user"]] * 3)
        os.setresuid(*[request["user"]] * 3)
    if request["act"] == "save":
        saves.cluster = savings.cluster = InThisProcess()
        saves.save(attachment, path, request.get("since"), "shard", 600.0).result(600.0)
    elif request["act"] == "load":
        load(path)
    elif request["act"] == "remove":
        remove(path)
    else:
        savings.given_up(path, [])


def child(spec, request, said):
    """The process of a request."""
    answer, path = {"error": None, "typed": True, "text": ""}, Path(request["path"])
    try:
        act(spec, request, path)
    except BaseException as error:
        answer = {"error": type(error).__name__, "typed": isinstance(error, FastPSError), "text": str(error)}
    if "disk_bytes" in request:
        answer["left"] = os.listdir(path.parent)
    os.write(said, json.dumps(answer).encode())


def main():
    requests = sys.stdin.buffer
    spec = pickle.load(requests)
    for line in requests:
        hears, says = os.pipe()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                child(spec, json.loads(line), says)
            os._exit(0)
        os.close(says)
        status = os.waitpid(pid, os.WUNTRACED)[1]
        while os.WIFSTOPPED(status):
            print(json.dumps({"stopped": True}), flush=True)
            requests.readline()
            os.kill(pid, signal.SIGCONT)
            status = os.waitpid(pid, os.WUNTRACED)[1]
        ended = {"stopped": False, "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}
        said = os.read(hears, 1 << 16)
        os.close(hears)
        print(json.dumps(ended | json.loads(said or "{}")), flush=True)


if __name__ == "__main__":
    main()
