"""The warm process: confined once, it forks a judge and a candidate for every job.

It never reads a job itself. The candidate is a copy of this process, and a copy must have nothing worth
reading; so the client hands over a socket, and only the judge reads from it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import stat
import time
from collections.abc import Callable, Sequence
from typing import Any

from . import candidate, judge, kernel, landlock, limits, namespaces, seccomp

_PRELOADED = (
    *("array", "bisect", "cmath", "collections", "copy", "dataclasses", "datetime", "decimal", "enum"),
    *("fractions", "functools", "heapq", "itertools", "json", "math", "operator", "random", "re"),
    *("statistics", "string", "typing"),
)
"""What code under test often imports."""
_GRACE_SECONDS = 0.5
"""The judge keeps the limit itself. A judge that hangs, in a test of its own, is killed so much later."""


def main(control: int, folder: str, without: Sequence[str]) -> None:
    """Confine this process as far as the machine allows, and serve until the client hangs up.

    Args:
        control: file descriptor of the socket to the client.
        folder: an empty folder: the scratch folder, or the place to build a new file system on.
        without: mechanisms to leave out: ``namespaces``, ``landlock``, ``seccomp``.
    """
    kernel.die_with_parent()
    limits.forget()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # when memory runs out, this goes first, and not the run
    client = socket.socket(fileno=control)
    for name in _PRELOADED:
        importlib.import_module(name)
    if "namespaces" in without:
        refusal = "left out"
    else:
        refusal = _in_namespaces(lambda: _serve(client, namespaces.SCRATCH, without, ""), folder, client)
    _serve(client, folder, without, refusal)


def _serve(client: socket.socket, scratch: str, without: Sequence[str], refusal: str) -> None:
    with contextlib.suppress(ConnectionError):  # the client is gone
        Zygote(client, scratch, without, refusal).serve()


def _in_namespaces(serve: Callable[[], None], folder: str, client: socket.socket) -> str:
    """Serve in namespaces and do not return; else say why they cannot be had."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        with open(reader) as answer:
            refusal = answer.read()
        if refusal:
            os.waitpid(child, 0)
            return refusal
        client.close()
        os.waitpid(child, 0)
        os._exit(0)
    kernel.die_with_parent()
    try:
        namespaces.enter(folder)
    except OSError as error:
        os.write(writer, str(error).encode())
        os._exit(1)
    os.close(writer)
    if init := os.fork():  # the first process of the new process table
        client.close()
        os.waitpid(init, 0)
        os._exit(0)
    kernel.die_with_parent()
    serve()
    os._exit(0)


@dataclasses.dataclass
class _Child:
    """A forked process and what leads to it."""

    process: int
    sock: socket.socket
    printed: int = -1

    def close(self) -> None:
        self.sock.close()
        if self.printed >= 0:
            os.close(self.printed)


class Zygote:
    """Serves jobs, one at a time.

    Args:
        refusal: why there are no namespaces; empty where there are.
    """

    def __init__(self, client: socket.socket, scratch: str, without: Sequence[str], refusal: str) -> None:
        self._client = client
        self._scratch = scratch
        self._in_namespaces = not refusal
        self._refusal = refusal
        self._judge: _Child | None = None
        kernel.give_up_privileges()
        self._filter: seccomp.Filter | None = None
        if "seccomp" not in without and seccomp.supported():
            made = seccomp.Filter(files=not self._in_namespaces)
            self._filter = made if _survives(made.restrict) else None
        self._rules: int | None = None
        if "landlock" not in without and landlock.version():
            self._rules = landlock.ruleset(
                [*namespaces.readable(), *namespaces.DEVICES], [scratch, "/dev/null"]
            )
        if not self._in_namespaces:
            kernel.adopt_orphans()

    def serve(self) -> None:
        """Offer the client a job's sockets, see the job through, offer the next.

        The client sends how many seconds a job may take when it starts one. Each offer says how the job
        before it ended, and carries a socket to the judge.
        """
        ended: dict[str, Any] = {"protection": self._protection()}
        judge.warm_up()
        gc.collect()
        gc.freeze()  # pages that no collection touches stay shared with the copies
        spare: _Child | None = None
        while True:
            tested, spare = spare or self._candidate(), None
            client, job = socket.socketpair()
            with client, job:
                socket.send_fds(self._client, [json.dumps(ended).encode()], [client.fileno()])
                if not (seconds := self._client.recv(64)):
                    return
                judging = self._judge = self._judge or self._fork_judge()
                handles = [tested.sock.fileno(), job.fileno(), tested.printed]
                socket.send_fds(judging.sock, [b"job"], handles)
            tested.close()
            if self._filter is not None:  # the code cannot reach it
                spare = self._candidate()
            in_time = self._wait(judging.sock, float(seconds) + _GRACE_SECONDS)
            again = in_time and judging.sock.recv(1) == b"+"
            status = self._end(tested.process, None if again else judging)
            self._wipe()
            ended = {"in_time": in_time, "code": os.waitstatus_to_exitcode(status)}

    def _protection(self) -> dict[str, Any]:
        """What guards each thing that must be guarded; an empty list where nothing does."""
        filtered = self._filter is not None
        return {
            "files": ["mount namespace"] * self._in_namespaces + ["landlock"] * (self._rules is not None),
            "network": ["network namespace"] * self._in_namespaces + ["seccomp"] * filtered,
            "processes": ["seccomp"] * filtered
            + ["rlimit"] * (self._in_namespaces and not _survives(_fork_over_limit)),
            "signals": ["process namespace"] * self._in_namespaces
            + ["seccomp"] * filtered
            + ["landlock"] * (self._rules is not None and landlock.covers_signals()),
            "reason": self._refusal,
        }

    def _candidate(self) -> _Child:
        ours, theirs = socket.socketpair()
        printed = os.memfd_create("printed")
        with theirs, open(os.memfd_create("input"), "rb") as given:  # empty, unless the job fills it
            process = self._fork(
                [given.fileno(), printed, printed, theirs.fileno()],
                lambda: candidate.main(socket.socket(fileno=3)),
            )
        return _Child(process, ours, printed)

    def _fork_judge(self) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs, open("/dev/null", "r+b", buffering=0) as null:
            process = self._fork(
                [null.fileno(), null.fileno(), null.fileno(), theirs.fileno()],
                lambda: judge.main(socket.socket(fileno=3)),
            )
        return _Child(process, ours)

    def _wait(self, judging: socket.socket, seconds: float) -> bool:
        """Whether the judge is done in time."""
        poll = select.poll()
        poll.register(judging, select.POLLIN)
        poll.register(self._client, select.POLLIN)
        ready = dict(poll.poll(seconds * 1000))
        if self._client.fileno() in ready:  # it says nothing during a job: it is gone
            os._exit(0)
        return bool(ready)

    def _end(self, tested: int, judging: _Child | None) -> int:
        """Kill the candidate and what it started, and a judge that is not to go on. The candidate's wait
        status."""
        if self._filter is None:  # it may have started others
            judging = self._judge
        if judging is not None:
            judging.close()
            os.kill(judging.process, signal.SIGKILL)
            os.waitpid(judging.process, 0)
            self._judge = None
        os.kill(tested, signal.SIGKILL)  # changes nothing where it has ended by itself
        _, status = os.waitpid(tested, 0)
        if self._filter is None:
            self._kill_all()
        return status

    def _kill_all(self) -> None:
        """End every process below this one, also those that left their group."""
        while True:
            if os.getpid() == 1:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGKILL)
            else:
                with open(f"/proc/self/task/{os.getpid()}/children") as children:
                    for child in children.read().split():
                        os.kill(int(child), signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return

    def _wipe(self) -> None:
        """Empty the scratch folder: no recursion, whatever the depth and the modes."""
        number = 0
        while names := os.listdir(self._scratch):
            for name in names:
                path = f"{self._scratch}/{name}"
                if not _is_folder(path):
                    os.unlink(path)
                    continue
                os.chmod(path, 0o700)
                for child in os.listdir(path):
                    inner = f"{path}/{child}"
                    if _is_folder(inner):
                        os.chmod(inner, 0o700)
                    number += 1
                    os.rename(inner, f"{self._scratch}/.{number}-{time.monotonic_ns()}")
                os.rmdir(path)

    def _fork(self, files: Sequence[int], run: Callable[[], None]) -> int:
        """Run something in a confined copy of this process with these descriptors as 0, 1, 2, … only."""

        def confined() -> None:
            os.chdir(self._scratch)
            kernel.die_with_parent()
            if self._rules is not None:
                landlock.restrict(self._rules)
            if self._filter is not None:
                self._filter.restrict()
            _keep(files)
            limits.always(threads=self._in_namespaces or self._filter is None)
            run()

        return _fork(confined)


def _fork_over_limit() -> None:
    limits.no_processes()
    if child := os.fork():
        os.waitpid(child, 0)
    else:
        os._exit(0)


def _survives(run: Callable[[], None]) -> bool:
    """Whether something works, tried in a copy of this process."""
    child = _fork(run)
    _, status = os.waitpid(child, 0)
    return status == 0


def _fork(run: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        run()
        status = 0
    finally:
        os._exit(status)


def _keep(descriptors: Sequence[int]) -> None:
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, limits.FILES) for descriptor in descriptors]
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, place)
    os.closerange(len(descriptors), 1 << 20)


def _is_folder(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)
