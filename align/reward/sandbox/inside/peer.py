"""Questions and answers between two processes over one socket: length, then JSON.

Each side may ask while it waits for an answer, so that a function handed over by a test can be called
back by the code under test.
"""

from __future__ import annotations

import json
import socket
import time
from abc import ABC, abstractmethod
from typing import Any

from .values import pack, unpack


class Lost(BaseException):
    """The other side is of no more use. No ``except Exception`` of a test may swallow it.

    Args:
        status: why: ``timeout``, ``exited``, ``output``, ``malformed``, or ``fault`` of the test itself.
    """

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Wire:
    """Frames on a stream socket.

    Args:
        limit: bytes that one frame may have; a longer one is ``Lost("output")``.
        deadline: ``time.monotonic()`` at which everything ends; None waits for ever.
    """

    def __init__(self, sock: socket.socket, limit: int, deadline: float | None = None) -> None:
        self._sock = sock
        self._limit = limit
        self._deadline = deadline

    def send(self, message: Any) -> None:
        data = json.dumps(message).encode()
        self._arm()
        try:
            self._sock.sendall(len(data).to_bytes(4, "big") + data)
        except TimeoutError:
            raise Lost("timeout", "no answer in time") from None
        except OSError as error:
            raise Lost("exited", "its process ended") from error

    def receive(self) -> Any:
        length = int.from_bytes(self._read(4), "big")
        if length > self._limit:
            raise Lost("output", f"an answer of {length} bytes")
        return json.loads(self._read(length))

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._arm()
            try:
                piece = self._sock.recv(min(size - len(data), 1 << 16))
            except TimeoutError:
                raise Lost("timeout", "no answer in time") from None
            except OSError:
                piece = b""
            if not piece:
                raise Lost("exited", "its process ended")
            data += piece
        return bytes(data)

    def _arm(self) -> None:
        if self._deadline is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise Lost("timeout", "no answer in time")
            self._sock.settimeout(left)


class Peer(ABC):
    """One side. Plain data travels by content, other objects as numbers that their owner knows."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._owned: list[Any] = []

    def ask(self, operation: str, *args: Any) -> Any:
        """Have the other side do something.

        Raises:
            Exception: what it raised there, by the name of its nearest built-in class.
            Lost: it cannot answer, or answers nonsense.
        """
        self._wire.send(["ask", operation, [pack(arg, self.refer) for arg in args]])
        while True:
            error: BaseException | None = None
            try:
                kind, first, second = self._wire.receive()
                if kind == "value":
                    return unpack(first, self.resolve)
                if kind == "raise":
                    error = self.revive(operation, first, second)
                elif kind != "ask":
                    raise ValueError(f"no such message: {kind!r}")
            except Exception as fault:
                raise Lost("malformed", f"an answer that cannot be read: {fault!r}"[:500]) from None
            if error is not None:
                raise error
            self._wire.send(self.answer(first, second))

    def answer(self, operation: str, args: list[Any]) -> list[Any]:
        """The message that answers a question of the other side."""
        try:
            value = self.perform(operation, [unpack(arg, self.resolve) for arg in args])
            return ["value", pack(value, self.refer), None]
        except Lost:
            raise
        except BaseException as error:
            return self.describe(error)

    def own(self, value: Any) -> int:
        """The number under which the other side can name an object of this side."""
        self._owned.append(value)
        return len(self._owned) - 1

    @abstractmethod
    def perform(self, operation: str, args: list[Any]) -> Any:
        """Do what the other side asks."""

    @abstractmethod
    def refer(self, value: Any) -> list[Any]:
        """``[tag, payload]`` of something that is not plain data."""

    @abstractmethod
    def resolve(self, tag: str, payload: Any) -> Any:
        """What such a reference of the other side stands for."""

    @abstractmethod
    def describe(self, error: BaseException) -> list[Any]:
        """``["raise", class name, text]``."""

    @abstractmethod
    def revive(self, operation: str, name: str, text: str) -> BaseException:
        """The exception that such a message stands for."""
