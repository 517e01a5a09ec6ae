"""The process that runs the tests. The code under test never runs here.

A test sees the code's globals as remote objects and gets plain values from them; assertions and expected
values are evaluated here, with this process's own built-ins.
"""

from __future__ import annotations

import builtins
import importlib
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from . import limits, runners
from .echo import Echo
from .peer import Lost, Peer, Wire
from .remote import Remote, call_as_statement
from .source import STATEMENT, Test

ANSWER_BYTES = 8 << 20
"""Longest answer of the code to one question."""
_NO_EXCEPTIONS = frozenset({"StopIteration", "StopAsyncIteration"})
"""Raised through a ``map`` or ``all`` of the test, these would end it early, as if all were well."""


_UNCLEAN = frozenset({"memory", "malformed"})


class _Left(BaseException):
    """The code called ``sys.exit`` or the like."""


class Judge(Peer):
    """Asks the candidate; what it hands out are functions of the tests, which it may only call back."""

    lost: Lost | None = None

    def __init__(self, wire: Wire, output: int) -> None:
        super().__init__(wire)
        self._echo = Echo(output)

    def ask(self, operation: str, *args: Any) -> Any:
        if self.lost is None:
            try:
                with self._echo:
                    return super().ask(operation, *args)
            except Lost as lost:
                self.lost = lost
        raise self.lost

    def perform(self, operation: str, args: list[Any]) -> Any:
        if operation != "callback":
            raise ValueError(f"no such operation: {operation!r}")
        number, values = args
        return self._owned[number](*values)

    def refer(self, value: Any) -> list[Any]:
        if isinstance(value, Remote):
            return ["yours", value._remote[1]]
        name = getattr(value, "__name__", "")
        if callable(value) and isinstance(name, str) and getattr(builtins, name, None) is value:
            return ["builtin", name]
        if callable(value):
            return ["callback", self.own(value)]
        raise Lost(
            "fault", f"an object of {type(value).__name__} cannot be handed to the code; use plain data"
        )

    def resolve(self, tag: str, payload: Any) -> Any:
        if tag != "object" or type(payload) is not int:
            raise ValueError(f"no such reference: {tag!r}")
        return Remote(self, payload)

    def describe(self, error: BaseException) -> list[Any]:
        return ["raise", type(error).__name__, "in a function of the test"]  # its text may tell too much

    def revive(self, operation: str, name: str, text: str) -> BaseException:
        kind = getattr(builtins, name)
        if not issubclass(kind, Exception):
            return _Left(text)
        if name in _NO_EXCEPTIONS and operation != "next":
            return RuntimeError(text)
        try:
            return kind(text)
        except TypeError:  # UnicodeError and the like take more than a text
            return RuntimeError(text)


class Bench:
    """The names that tests see, and the verdicts.

    Names resolve, in this order, to: the tests' own globals, globals of the code, built-ins. A built-in
    that the code defines anew (``abs``) keeps its meaning, unless the tests want nothing else of the
    code: then it must be what they test. The tests alone decide this, not what the code defines.
    """

    detail = ""
    """Of the first test that did not pass."""

    def __init__(self, judge: Judge, tests: Sequence[Test], output: int, output_bytes: int) -> None:
        self._judge = judge
        self._output = output
        self._output_bytes = output_bytes
        self._builtins = dict(vars(builtins)) | runners.ENDING | {STATEMENT: call_as_statement}
        self._globals: dict[str, Any] = {}
        self._found: list[BaseException | str] = []
        if not all(test.pure for test in tests):
            self._globals = vars(runners.module_of_tests())
            runners.prepare(frozenset[str]().union(*(test.modules for test in tests)), self._found.append)
        self._globals |= {"__builtins__": self._builtins, "__name__": "__main__"}
        used = frozenset[str]().union(*(test.names for test in tests))
        bound = frozenset[str]().union(*(test.bound for test in tests))
        self._modules = frozenset[str]().union(*(test.dotted for test in tests)) & sys.stdlib_module_names
        builtin = vars(builtins).keys()
        self._taken = frozenset[str]().union(*(test.taken for test in tests))
        self._wanted = used - self._modules - {STATEMENT} - runners.ENDING.keys()
        if self._wanted - bound - builtin:
            self._wanted -= builtin
        self._wanted |= self._taken
        self._data: set[str] = set()

    def load(self, code: str) -> str:
        """Have the code run as a module: its status."""

        def run() -> None:
            told = self._judge.ask("load", code, self._wanted)
            defined = {name: told[name] for name in self._wanted if name in told}  # and nothing it adds
            self._builtins.update(defined)
            runners.offer({name: defined[name] for name in defined if name in self._taken})
            # Functions and classes stay what they are; plain data may change from test to test.
            self._data = {name for name, value in defined.items() if not isinstance(value, Remote)}

        return self._syntax(self._status(run))

    def main(self, code: str) -> str:
        """Have the code run as a program: its status."""

        def run() -> None:
            if (status := self._judge.ask("main", code)) != 0:
                raise _Left(f"exit status {status!r}"[:500])

        return self._syntax(self._status(run))

    def _syntax(self, status: str) -> str:
        return "syntax" if status == "exception" and self.detail.startswith(_SYNTAX) else status

    def run(self, test: Test) -> str:
        """The status of one test."""

        def run() -> None:
            names = test.names - self._globals.keys()
            for name in names & self._modules:  # the library's, though only the code imported it
                self._builtins[name] = importlib.import_module(name)
            for name in names & self._data:
                self._builtins[name] = self._judge.ask("global", name)
            exec(test.code, self._globals)

        return self._status(run)

    def _status(self, run: Callable[[], None]) -> str:
        status, detail = "passed", ""
        self._found.clear()
        try:
            run()
        except BaseException as error:
            status, detail = _ending(error)
        if self._found and status == "passed":  # a test runner has caught it
            first = self._found[0]
            status, detail = ("fault", first) if isinstance(first, str) else _ending(first)
        if self._judge.lost is not None:
            status, detail = self._judge.lost.status, self._judge.lost.detail
        if os.fstat(self._output).st_size >= self._output_bytes:
            status, detail = "output", f"printed {self._output_bytes} bytes or more"
        if status != "passed" and not self.detail:
            self.detail = detail[:500]
        return status


def _ending(error: BaseException) -> tuple[str, str]:
    """Status and detail of a test that ends with an exception."""
    if isinstance(error, Lost):  # the judge remembers it, also where a test caught it
        return "passed", ""
    if isinstance(error, MemoryError):
        return "memory", str(error)
    if isinstance(error, _Left):
        return "exited", str(error)
    if isinstance(error, AssertionError):
        return "failed", str(error)
    if isinstance(error, SystemExit):  # of the test itself
        return ("failed", f"exit status {error.code}") if error.code else ("passed", "")
    if isinstance(error, ImportError) and error.name and not runners.is_known(error.name):
        return "fault", _LACKS.format(error.name)  # the code's own have no name
    return "exception", f"{type(error).__name__}: {error}"


_LACKS = "the tests import `{}`; the sandbox has the standard library, and the answer as `solution`"
_SYNTAX = ("SyntaxError: ", "IndentationError: ", "TabError: ")


def judge(candidate: socket.socket, output: int, job: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """``statuses`` and ``detail`` of a job's tests; or the ``fault`` of its tests; or the ``failure`` of
    the sandbox. And whether this process is as it was before."""
    if "program" in job:
        return run_program(candidate, output, job)
    try:
        setup, *tests = [Test(source) for source in (job["setup"], *job["tests"])]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return {"fault": f"a test that does not parse: {error}"}, True
    if lacking := next((test.absent for test in (setup, *tests) if test.absent), None):
        return {"fault": _LACKS.format(lacking)}, True
    try:
        peer = _ready(candidate, output, job)
    except (Lost, Exception) as error:
        return _not_started(error), False
    bench = Bench(peer, [setup, *tests], output, job["limits"]["file_bytes"])
    status = bench.load(job["code"])
    if status == "passed":
        status = bench.run(setup)
    statuses = [bench.run(test) if status == "passed" else status for test in tests]
    if "fault" in statuses:
        return {"fault": bench.detail}, False
    clean = setup.pure and all(test.pure for test in tests) and not _UNCLEAN.intersection(statuses)
    return {"statuses": statuses, "detail": bench.detail}, clean


def run_program(candidate: socket.socket, output: int, job: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """One of ``statuses``, ``detail`` and what the program ``printed``; or the ``failure`` of the sandbox.
    And whether this process is as it was before. What should be printed is for the client to know."""
    try:
        peer = _ready(candidate, output, job)
    except (Lost, Exception) as error:
        return _not_started(error), False
    limit = job["limits"]["file_bytes"]
    bench = Bench(peer, [], output, limit)
    status = bench.main(job["program"])
    printed = os.pread(output, limit, 0).decode(errors="replace")
    told = {"statuses": [status], "detail": bench.detail, "printed": printed, "gone": peer.lost is not None}
    return told, status not in _UNCLEAN


def _ready(candidate: socket.socket, output: int, job: dict[str, Any]) -> Judge:
    """The candidate with its input, under its limits. It has not seen the code yet."""
    peer = Judge(Wire(candidate, ANSWER_BYTES, time.monotonic() + job["wall_seconds"]), output)
    if "program" in job:
        peer.ask("give", job["stdin"])
    peer.ask("limit", job["limits"])
    return peer


def _not_started(error: BaseException) -> dict[str, Any]:
    return {"failure": f"the process for the code did not start: {error}"}


def warm_up() -> None:
    """What the first parsing sets up is inherited by the copies of this process."""
    Test("a.b(c)\nassert f(1) == 2")


def main(inbox: socket.socket) -> None:
    """Judge jobs until one may have left something behind. Each comes as three descriptors: sockets to
    candidate and client, and the file with what the code prints."""
    again = True
    while again:
        _, (candidate, client, output), _, _ = socket.recv_fds(inbox, 8, 3)
        with socket.socket(fileno=candidate) as tested, socket.socket(fileno=client) as asker:
            job = json.loads(b"".join(iter(lambda: asker.recv(1 << 16), b"")))
            limits.memory(job["limits"])
            try:
                verdict, again = judge(tested, output, job)
            except Exception:
                verdict, again = {"failure": traceback.format_exc()}, False
            asker.sendall(json.dumps(verdict).encode())
        os.close(output)
        inbox.send(b"+" if again else b"-")
