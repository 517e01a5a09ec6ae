"""The process that runs the code under test. It owns no secret: it sees calls, never expected values.

It does what the judge asks (call this function with these arguments, get that attribute) and sends back
values. Hostile code can take it over wholly, and then sends values of its choice, nothing more.
"""

from __future__ import annotations

import builtins
import operator
import random
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

from . import limits, program
from .peer import Lost, Peer, Wire

_NAME = "solution"


class Candidate(Peer):
    """Answers the judge."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self._module = types.ModuleType(_NAME)
        sys.modules[_NAME] = self._module  # dataclasses look their module up here

    def serve(self) -> None:
        """Answer until the judge hangs up."""
        while True:
            _, operation, args = self._wire.receive()
            self._wire.send(self.answer(operation, args))

    def perform(self, operation: str, args: list[Any]) -> Any:
        names = self._module.__dict__
        if operation == "global":
            return names[args[0]]
        if operation == "limit":
            return limits.apply(args[0])
        if operation == "give":
            return program.give(args[0])
        if operation == "main":
            return program.run(args[0])
        try:
            if operation == "load":
                sys.stderr = open("/dev/null", "w")  # noqa: SIM115 - a test may read what is printed
                exec(compile(args[0], f"<{_NAME}>", "exec", dont_inherit=True), names)
                return {name: names[name] for name in args[1] if name in names}
            return _OPERATIONS[operation](*args)
        finally:
            sys.stdout.flush()  # what is printed counts at once

    def refer(self, value: Any) -> list[Any]:
        return ["object", self.own(value)]

    def resolve(self, tag: str, payload: Any) -> Any:
        if tag == "yours":
            return self._owned[payload]
        if tag == "builtin":
            return getattr(builtins, payload)
        return lambda *args: self.ask("callback", payload, args)

    def describe(self, error: BaseException) -> list[Any]:
        kind = next(kind for kind in type(error).__mro__ if getattr(builtins, kind.__name__, None) is kind)
        text = str(error) if kind is type(error) else f"{type(error).__name__}: {error}"
        return ["raise", kind.__name__, text[:500]]

    def revive(self, operation: str, name: str, text: str) -> BaseException:
        return RuntimeError(f"{name}: {text}")


def _apply(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return function(*args, **kwargs)


def _apply_in_place(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    function(*args, **kwargs)
    return args


def _await(value: Any) -> Any:
    import asyncio  # takes long, and few need it

    async def wait() -> Any:
        return await value

    return asyncio.run(wait())


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "apply": _apply,
    "apply_in_place": _apply_in_place,
    "getattr": getattr,
    "setattr": setattr,
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "delitem": operator.delitem,
    "await": _await,
    "len": len,
    "bool": bool,
    "str": str,
    "repr": repr,
    "iter": iter,
    "next": next,
    "isinstance": isinstance,
    "eq": operator.eq,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
}


def main(sock: socket.socket) -> None:
    """Serve the judge at the other end."""
    random.seed(0)  # the same code gets the same verdict
    sys.argv = [""]
    try:
        Candidate(Wire(sock, limit=1 << 30)).serve()
    except Lost:
        return
