"""An object that lives with the code under test, as the tests see it.

It can be called, indexed, iterated and asked for attributes: each gives a value that the code must
compute. It is never compared with plain data over there, where an ``__eq__`` that always says yes, or a
``__sub__`` that always gives 0, would learn the expected value and pass; only two objects of the code
are compared by the code.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from .peer import Peer

_SHOWN = frozenset({"__name__", "__doc__"})


class Remote:
    """A reference to an object of the code under test."""

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_remote", (peer, number))

    def _ask(self, operation: str, *args: Any) -> Any:
        return self._remote[0].ask(operation, self, *args)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("apply", args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in _SHOWN:
            raise AttributeError(name)
        return self._ask("getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("setattr", name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._ask("getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._ask("setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        self._ask("delitem", key)

    def __len__(self) -> int:
        return self._ask("len")

    def __bool__(self) -> bool:
        return self._ask("bool")

    def __str__(self) -> str:
        return self._ask("str")

    def __repr__(self) -> str:
        return self._ask("repr")

    def __iter__(self) -> Any:
        return self._ask("iter")

    def __next__(self) -> Any:
        return self._ask("next")

    def __await__(self) -> Generator[None, None, Any]:
        return self._ask("await")
        yield  # which makes it the iterator that `await` wants

    def __contains__(self, key: Any) -> bool:
        raise TypeError("an object of the code cannot be searched with `in`; compare list(…) of it")

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, Remote) and instance._ask("isinstance", self) is True

    def __hash__(self) -> int:
        return hash(self._remote[1])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and self._ask("eq", other) is True

    @staticmethod
    def _between(operation: str) -> Callable[[Any, Any], Any]:
        def operate(self: Remote, other: Any) -> Any:
            return self._ask(operation, other) if isinstance(other, Remote) else NotImplemented

        return operate

    __lt__ = _between("lt")
    __le__ = _between("le")
    __gt__ = _between("gt")
    __ge__ = _between("ge")
    __add__ = _between("add")
    __sub__ = _between("sub")
    __mul__ = _between("mul")


def call_as_statement(function: Any, /, *args: Any, **kwargs: Any) -> None:
    """A call whose value the test ignores: changes to lists, dicts and sets among its arguments are
    made here too, because they are what it was called for."""
    if not isinstance(function, Remote):
        function(*args, **kwargs)
        return
    after = function._ask("apply_in_place", args, kwargs)
    if isinstance(after, tuple) and len(after) == len(args):
        for old, new in zip(args, after, strict=True):
            _restore(old, new)


def _restore(old: Any, new: Any) -> None:
    if type(old) is not type(new):
        return
    if isinstance(old, list | bytearray):
        old[:] = new
    elif isinstance(old, dict | set):
        old.clear()
        old.update(new)
