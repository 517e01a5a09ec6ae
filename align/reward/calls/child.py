"""Reward functions in one process apart, watched from outside: no call can hang or end this process.

    with ChildProcess({"answer": Assignment(...)}) as child:
        outcomes = child.score("answer", samples)

For what runs without Ray: the start-up call, held-out metrics, replay.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from align.errors import RewardError
from align.reward.calls.limits import DIED, ENVIRONMENT, GRACE_SECONDS, START_SECONDS, Answer, late
from align.reward.calls.worker import Assignment, RewardWorker
from align.reward.contract import Sample
from align.types import Outcome

END_SECONDS = 2.0
"""An idle process has so long to tidy up before it is killed."""


class ChildProcess:
    """Calls functions in a process that is started with the first call and again after a lost one.

    Args:
        functions: by name.
        seed: the run's seed, from which those of the calls derive.
    """

    def __init__(self, functions: Mapping[str, Assignment], *, seed: int = 0) -> None:
        self._functions = functions
        self._seed = seed
        self._process: Any = None
        self._pipe: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(kill=kind is not None)

    def score(
        self, name: str, samples: Sequence[Sample], *, step: int = 0, seconds: float | None = None
    ) -> list[Outcome]:
        """Have one job done; one outcome a sample. A lost process fails all of them.

        Args:
            name: the function.
            samples: the samples of the job.
            step: version of the weights that sampled them; a seed of the calls.
            seconds: wall-clock time for the whole job; the function's own timeout where it is left out.

        Raises:
            RewardError: the functions cannot be imported in a fresh process.
        """
        limit = seconds or self._functions[name].timeout
        if self._process is None:
            self._start()
        try:
            self._pipe.send((name, samples, step))
            answer: Answer = _receive(self._pipe, limit + GRACE_SECONDS)
        except TimeoutError:
            self._end(kill=True)
            return [late(limit)] * len(samples)
        except (EOFError, BrokenPipeError):
            return [Outcome("error", detail=f"{DIED}: exit code {self._end()}")] * len(samples)
        except BaseException:  # an interrupt in the middle: the answer under way is nobody's
            self._end(kill=True)
            raise
        if answer.exhausted:
            self._end(kill=True)
        return answer.outcomes

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._functions, self._seed))
        self._process.start()
        theirs.close()
        try:
            refused: RewardError | None = _receive(self._pipe, START_SECONDS)
        except TimeoutError as error:
            self._end(kill=True)
            raise self._unusable(f"no answer within {START_SECONDS:g} s") from error
        except EOFError as error:
            raise self._unusable(f"it ended with exit code {self._end()}") from error
        if refused is not None:
            self._end()
            raise refused

    def _unusable(self, reason: str) -> RewardError:
        return RewardError(
            f"a process that imports the reward functions does not start: {reason}",
            file=", ".join(sorted({each.reference.partition(":")[0] for each in self._functions.values()})),
            remedy="see that the reward files import in a fresh process",
        )

    def _end(self, *, kill: bool = False) -> int | None:
        """End the process, if there is one; returns its exit code."""
        if self._process is None:
            return None
        self._pipe.close()
        if not kill:
            self._process.join(END_SECONDS)
        code: int | None = self._process.exitcode
        self._process.kill()
        self._process.join()
        self._process = None
        return code


def score_each(
    child: ChildProcess, name: str, samples: Sequence[Sample], *, together: bool, timeout: float
) -> list[Outcome]:
    """Score samples in one call, or one by one; either way each adds ``timeout`` seconds.

    Args:
        child: the process.
        name: the function.
        samples: what to score.
        together: the function takes or awaits several samples at once.
        timeout: seconds a sample may take.
    """
    if together and samples:
        return child.score(name, samples, seconds=timeout * len(samples))
    return [outcome for sample in samples for outcome in child.score(name, [sample])]


def _receive(connection: Any, seconds: float) -> Any:
    """The next message.

    Raises:
        TimeoutError: none came.
        EOFError: the other side is gone.
    """
    if not connection.poll(seconds):
        raise TimeoutError
    try:
        return connection.recv()
    except ConnectionResetError as error:
        raise EOFError from error


def _serve(connection: Any, functions: Mapping[str, Assignment], seed: int) -> None:
    """The child: None once the functions are imported, or why they are not; then an answer a job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the parent, which ends this process
    os.environ.update(ENVIRONMENT)
    try:
        worker = RewardWorker(functions, seed)
    except RewardError as error:
        connection.send(error)
        return
    connection.send(None)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(worker.score(*job))
