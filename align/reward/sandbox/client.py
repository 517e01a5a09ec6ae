"""The outside of the sandbox: starts the warm process, hands it jobs, replaces it when it dies."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.errors import RewardError
from align.reward.sandbox.verdict import Isolation, Limits, Protection, Run, SandboxError, Verdict

START_SECONDS = 20.0
GRACE_SECONDS = 5.0
"""Beyond a job's own limit, after which the sandbox counts as stuck."""
ATTEMPTS = 2
_START = "import sys; sys.path.append(sys.argv[1]); from inside import zygote; sys.path.pop(); "
_START += "zygote.main(int(sys.argv[2]), sys.argv[3], sys.argv[4:])"
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "1", "TMPDIR": "."}
"""All that the code sees of an environment. Sets of texts have the same order in every run."""


class Sandbox:
    """One warm process, started with the first job. One job at a time; threads wait their turn.

    Args:
        without: mechanisms to do without (``namespaces``, ``landlock``, ``seccomp``), to see what a
            machine that lacks them would do.
    """

    def __init__(self, without: Sequence[str] = ()) -> None:
        self._without = list(without)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._control: socket.socket
        self._offer: socket.socket | None = None
        self._folder: str
        self._protection: Protection

    def protection(self) -> Protection:
        """What guards this machine; starts the process where there is none.

        Raises:
            SandboxError: it does not start.
        """
        with self._lock:
            self._ensure()
            return self._protection

    def run(
        self,
        code: str,
        tests: Sequence[str],
        *,
        setup: str = "",
        limits: Limits | None = None,
        isolation: Isolation = "best_effort",
    ) -> Verdict:
        """Run code and then, against it, tests.

        Args:
            code: a Python module.
            tests: statements each; globals of the code are within reach.
            setup: statements that run after the code and before the tests.
            isolation: ``required`` refuses to run anything where a protection is missing.

        Raises:
            RewardError: the tests are unusable, or the machine lacks what ``isolation`` demands.
            SandboxError: the sandbox failed.
        """
        if not tests:
            raise RewardError("there are no tests", key="tests", remedy="give at least one, or drop the row")
        job = {"code": code, "setup": setup, "tests": list(tests)}
        told, ended, seconds = self._job(job, limits or Limits(), isolation)
        return _verdict(told, ended, len(tests), seconds)

    def run_program(
        self,
        code: str,
        stdin: str = "",
        *,
        limits: Limits | None = None,
        isolation: Isolation = "best_effort",
    ) -> Run:
        """Run code as a program, in a process of its own. What it should print does not go along.

        Args:
            code: a Python program.
            stdin: its standard input.
            isolation: ``required`` refuses to run anything where a protection is missing.

        Raises:
            RewardError: the machine lacks what ``isolation`` demands.
            SandboxError: the sandbox failed.
        """
        told, ended, seconds = self._job({"program": code, "stdin": stdin}, limits or Limits(), isolation)
        verdict = _verdict(told, ended, 1, seconds)
        left_well = verdict.reason == "exited" and told["gone"] and ended.get("code") == 0  # by os._exit(0)
        return Run(
            "passed" if left_well else verdict.reason, told.get("printed", ""), verdict.detail, seconds
        )

    def close(self) -> None:
        """End the process; the next job starts another."""
        if self._process is None:
            return
        process, self._process = self._process, None
        self._control.close()
        if self._offer is not None:
            self._offer.close()
            self._offer = None
        if self._owner == os.getpid():  # after a fork it is the parent's
            process.kill()
            process.wait()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _job(
        self, job: dict[str, Any], limits: Limits, isolation: Isolation
    ) -> tuple[dict[str, Any], dict[str, Any], float]:
        """The judge's verdict, how the processes ended, and the seconds it took."""
        job |= {
            "wall_seconds": limits.wall_seconds,
            "limits": {
                "memory_bytes": limits.memory_mb << 20,
                "cpu_seconds": limits.cpu_seconds,
                "file_bytes": limits.output_kb << 10,
            },
        }
        with self._lock:
            start = time.monotonic()
            told, ended = self._try(json.dumps(job).encode(), limits.wall_seconds, isolation)
            return told, ended, time.monotonic() - start

    def _try(self, job: bytes, seconds: float, isolation: Isolation) -> tuple[dict[str, Any], dict[str, Any]]:
        for _ in range(ATTEMPTS):
            self._ensure()
            if isolation == "required":
                _demand(self._protection)
            try:
                found = self._exchange(job, seconds)
            except TimeoutError as error:
                self.close()
                raise SandboxError(
                    f"the sandbox gave no sign for {GRACE_SECONDS:g} s beyond the limit of the job",
                    remedy="see whether the machine is overloaded",
                ) from error
            except BaseException:  # an interrupt in the middle: the next job needs a fresh channel
                self.close()
                raise
            if found is not None:
                return found
            self.close()
        raise SandboxError(
            f"the sandbox process died {ATTEMPTS} times over one job",
            remedy="see whether the machine is out of memory or processes",
        )

    def _exchange(self, job: bytes, seconds: float) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The judge's verdict and how the processes ended; None where the sandbox process is dead."""
        self._control.settimeout(seconds + GRACE_SECONDS)
        if self._offer is None and self._next_offer() is None:
            return None
        judge, self._offer = self._offer, None
        assert judge is not None
        judge.settimeout(seconds + GRACE_SECONDS)
        with judge, contextlib.suppress(ConnectionError):
            self._control.send(str(seconds).encode())
            judge.sendall(job)
            judge.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: judge.recv(1 << 16), b""))
            verdict = json.loads(answer) if answer else {}
            if "statuses" in verdict and "exited" not in verdict["statuses"]:
                return verdict, {}  # the rest can wait: the next job reads it
            ended = self._next_offer()
            return None if ended is None else (verdict, ended)
        return None

    def _next_offer(self) -> dict[str, Any] | None:
        """Take a socket to a fresh judge; how the job before ended, or None from a dead process."""
        try:
            message, handles, _, _ = socket.recv_fds(self._control, 1 << 16, 1)
        except ConnectionError:
            return None
        if not handles:
            return None
        self._offer = socket.socket(fileno=handles[0])
        return json.loads(message)

    def _ensure(self) -> None:
        """Start the process unless it lives.

        Raises:
            SandboxError: it does not start.
        """
        if self._process and self._owner == os.getpid() and self._process.poll() is None:
            return
        self.close()
        self._owner = os.getpid()
        self._folder = tempfile.mkdtemp(prefix="align-sandbox-")
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        place, control = str(Path(__file__).parent), str(theirs.fileno())
        command = [sys.executable, "-s", "-S", "-P", "-B", "-X", "utf8", "-c", _START]
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*command, place, control, self._folder, *self._without],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                    env=_ENVIRONMENT,
                    start_new_session=True,  # an interrupt from the keyboard is not for it
                )
            except OSError as error:
                raise SandboxError(
                    f"the sandbox process does not start: {error}",
                    remedy="see whether the machine is out of memory or processes",
                ) from error
        self._control.settimeout(START_SECONDS)
        try:
            hello = self._next_offer()
        except TimeoutError:
            hello = None
        if hello is None:
            self.close()
            raise SandboxError(
                "the sandbox process does not start",
                remedy=f"see what it wrote above, and whether {sys.executable} starts by itself",
            )
        self._protection = Protection.of(hello["protection"])
        if (
            not self._protection.reason
        ):  # its file system stands; nothing is left should this process be killed
            os.rmdir(self._folder)


def _demand(found: Protection) -> None:
    if found.missing:
        reason = f" (no namespaces: {found.reason})" if found.reason else ""
        raise RewardError(
            f"this machine cannot isolate model-written code: nothing guards "
            f"{', '.join(found.missing)}{reason}",
            key="isolation",
            remedy="allow user namespaces, or use Linux 6.2 with Landlock and seccomp; "
            "`isolation: best_effort` runs the code with what there is",
        )


def _verdict(told: dict[str, Any], ended: dict[str, Any], tests: int, seconds: float) -> Verdict:
    if "fault" in told:
        raise RewardError(told["fault"], key="tests", remedy="mend the row's tests, or drop the row")
    if "statuses" in told:
        statuses = told["statuses"]
        if ended.get("code") == -signal.SIGXCPU:
            statuses = ["timeout" if status == "exited" else status for status in statuses]
        return Verdict(tuple(statuses), told["detail"], seconds)
    if not told and not ended["in_time"]:  # a test hangs by itself, or waits for what never comes
        return Verdict(("timeout",) * tests, "the tests did not end", seconds)
    raise SandboxError(
        told.get("failure", "a job ended without a verdict"), remedy="give the code more memory (`memory_mb`)"
    )


_shared = Sandbox()
atexit.register(_shared.close)

run_program = _shared.run_program
"""``Sandbox.run_program`` in the sandbox that this process shares."""
run_tests = _shared.run
"""``Sandbox.run`` in the sandbox that this process shares."""
protection = _shared.protection
"""``Sandbox.protection`` of the sandbox that this process shares."""
