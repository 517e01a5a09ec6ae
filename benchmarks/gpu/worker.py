"""A process beside the part's own, with its own CUDA context: an object that is asked over a pipe."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch.multiprocessing


class WorkerError(Exception):
    """What the object raised, as text, or that its process is gone."""


class Worker:
    """Usage: ``with Worker(Trainer, *arguments) as trainer: trainer.ask("publish", 0)``."""

    def __init__(
        self, make: Callable[..., Any], *arguments: Any, environment: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            make: makes the object, in the process; picklable by its name.
            arguments: of ``make``.
            environment: set in the process before anything is imported there.
        """
        context = torch.multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        before = dict(os.environ)
        os.environ.update(environment or {})
        try:
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        theirs.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def ask(self, method: str, *arguments: Any, seconds: float = 60) -> Any:
        """What ``method`` of the object returns.

        Raises:
            WorkerError: it raised something, or did not answer in time.
        """
        try:
            self._pipe.send((method, arguments))
            if not self._pipe.poll(seconds):
                raise WorkerError(f"no answer to {method} in {seconds:g} s")
            failed, answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerError(f"the process ended during {method}") from error
        if failed:
            raise WorkerError(answer)
        return answer


def _serve(pipe: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    made: Any = None
    while True:
        try:
            method, given = pipe.recv()
        except EOFError:
            return
        try:
            made = made or make(*arguments)
            answer = False, getattr(made, method)(*given)
        except Exception as error:  # all of it is for the other side
            traceback.print_exc()
            answer = True, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        pipe.send(answer)
