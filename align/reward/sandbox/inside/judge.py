"""The process that runs the tests. The code under test never runs here.

A test sees the code's globals as remote objects and gets plain values from them; assertions and expected
values are evaluated here, with this process's own built-ins.
"""

from __future__ import annotations

import ast
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

from . import limits
from .peer import Lost, Peer, Wire
from .remote import Remote, call_as_statement

ANSWER_BYTES = 8 << 20
"""Longest answer of the code to one question."""
_STATEMENT = "__call_as_statement__"
_NO_EXCEPTIONS = frozenset({"StopIteration", "StopAsyncIteration"})
"""Raised through a ``map`` or ``all`` of the test, these would end it early, as if all were well."""


_UNCLEAN = frozenset({"memory", "malformed"})
_PURE = (
    *(ast.Module, ast.Assert, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant),
    *(ast.Compare, ast.cmpop, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.unaryop, ast.BinOp, ast.operator),
    *(ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Subscript, ast.Slice),
)
_PURE_BUILTINS = frozenset(
    (
        *("abs", "all", "any", "bool", "bytes", "complex", "dict", "divmod", "enumerate", "float"),
        *("frozenset", "int", "len", "list", "map", "max", "min", "range", "reversed", "round", "set"),
        *("sorted", "str", "sum", "tuple", "zip"),
    )
)


class _Left(BaseException):
    """The code called ``sys.exit`` or the like."""


class Judge(Peer):
    """Asks the candidate; what it hands out are functions of the tests, which it may only call back."""

    lost: Lost | None = None

    def ask(self, operation: str, *args: Any) -> Any:
        if self.lost is None:
            try:
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


class Test:
    """A compiled test, the names that it uses and those that it binds.

    A ``pure`` one only evaluates expressions of plain data: it cannot change anything in this process,
    so that the next job may use the same process.

    Raises:
        SyntaxError, ValueError: it does not parse.
    """

    def __init__(self, source: str) -> None:
        tree = ast.parse(source)
        names: set[str] = set()
        bound: set[str] = set()
        dotted: set[str] = set()
        pure = True
        for node in ast.walk(tree):
            pure = pure and isinstance(node, _PURE)
            if isinstance(node, ast.Name):
                (names if isinstance(node.ctx, ast.Load) else bound).add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler) and node.name:
                bound.add(node.name)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.alias):
                bound.add((node.asname or node.name).partition(".")[0])
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                dotted.add(node.value.id)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                call = node.value
                call.args.insert(0, call.func)
                call.func = ast.copy_location(ast.Name(_STATEMENT, ast.Load()), call)
        self.names, self.bound, self.dotted = frozenset(names), frozenset(bound), frozenset(dotted)
        self.pure = pure and not names & (vars(builtins).keys() - _PURE_BUILTINS)
        self.code = compile(tree, "<test>", "exec", dont_inherit=True)


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
        self._builtins = dict(vars(builtins)) | {_STATEMENT: call_as_statement}
        self._globals: dict[str, Any] = {"__builtins__": self._builtins, "__name__": "tests"}
        used = frozenset[str]().union(*(test.names for test in tests))
        bound = frozenset[str]().union(*(test.bound for test in tests))
        self._modules = frozenset[str]().union(*(test.dotted for test in tests)) & sys.stdlib_module_names
        builtin = vars(builtins).keys()
        self._wanted = used - self._modules - {_STATEMENT}
        if self._wanted - bound - builtin:
            self._wanted -= builtin
        self._data: set[str] = set()

    def load(self, code: str) -> str:
        """Have the code run as a module: its status."""

        def run() -> None:
            told = self._judge.ask("load", code, self._wanted)
            defined = {name: told[name] for name in self._wanted if name in told}  # and nothing it adds
            self._builtins.update(defined)
            # Functions and classes stay what they are; plain data may change from test to test.
            self._data = {name for name, value in defined.items() if not isinstance(value, Remote)}

        status = self._status(run)
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
        try:
            run()
        except Lost:
            pass  # the judge remembers it, also where a test caught it
        except MemoryError as error:
            status, detail = "memory", str(error)
        except _Left as error:
            status, detail = "exited", str(error)
        except AssertionError as error:
            status, detail = "failed", str(error)
        except BaseException as error:
            status, detail = "exception", f"{type(error).__name__}: {error}"
        if self._judge.lost is not None:
            status, detail = self._judge.lost.status, self._judge.lost.detail
        if os.fstat(self._output).st_size >= self._output_bytes:
            status, detail = "output", f"printed {self._output_bytes} bytes or more"
        if status != "passed" and not self.detail:
            self.detail = detail[:500]
        return status


_SYNTAX = ("SyntaxError: ", "IndentationError: ", "TabError: ")


def judge(candidate: socket.socket, output: int, job: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """``statuses`` and ``detail`` of a job's tests; or the ``fault`` of its tests; or the ``failure`` of
    the sandbox. And whether this process is as it was before."""
    try:
        setup, *tests = [Test(source) for source in (job["setup"], *job["tests"])]
    except (SyntaxError, ValueError) as error:
        return {"fault": f"a test that does not parse: {error}"}, True
    peer = Judge(Wire(candidate, ANSWER_BYTES, time.monotonic() + job["wall_seconds"]))
    try:
        peer.ask("limit", job["limits"])  # it has not seen the code yet
    except (Lost, Exception) as error:
        return {"failure": f"the process for the code did not start: {error}"}, False
    bench = Bench(peer, [setup, *tests], output, job["limits"]["file_bytes"])
    status = bench.load(job["code"])
    if status == "passed":
        status = bench.run(setup)
    statuses = [bench.run(test) if status == "passed" else status for test in tests]
    if "fault" in statuses:
        return {"fault": bench.detail}, False
    clean = setup.pure and all(test.pure for test in tests) and not _UNCLEAN.intersection(statuses)
    return {"statuses": statuses, "detail": bench.detail}, clean


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
