"""The reward processes and the thread that keeps them at work.

The thread gives each worker one job at a time, or several short ones, and watches the clock from outside,
because a function stuck in C code (a regular expression, an integer power) cannot be stopped from inside. A
worker that passes the limit, dies or runs out of memory is replaced, and the run goes on. Functions run in
their worker's main thread, which ``signal.alarm`` (math-verify) needs.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from align.errors import EngineError
from align.reward.bank.jobs import Job, JobBoard, Ticket
from align.reward.calls.limits import DIED, ENVIRONMENT, GRACE_SECONDS, START_SECONDS, Answer, late
from align.reward.calls.worker import Assignment, RewardWorker
from align.types import Outcome

START_ATTEMPTS = 3
"""Starts that may fail in a row."""


@dataclass(slots=True)
class _Seat:
    """One place in the pool: the worker that holds it now and what it was asked."""

    worker: Any = None
    starting: bool = False
    jobs: list[Job] = field(default_factory=list)
    deadline: float = 0.0
    turn: int = 0
    """Counts the questions: an answer to an earlier one is stale."""

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return self.starting or bool(self.jobs)


class Meter:
    """Adds up the seconds in which scoring is under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = time.monotonic()
        self._on = False
        self._seconds = 0.0

    def set(self, on: bool) -> None:
        """From now on, scoring is or is not under way."""
        with self._lock:
            self._settle()
            self._on = on

    def take(self) -> float:
        """The seconds since the last call."""
        with self._lock:
            self._settle()
            seconds, self._seconds = self._seconds, 0.0
            return seconds

    def _settle(self) -> None:
        now = time.monotonic()
        self._seconds += self._on * (now - self._since)
        self._since = now


class Crew:
    """Works off the jobs of a board.

    Args:
        board: the jobs; from here on it belongs to the thread.
        assignments: what each worker computes, by term.
        workers: how many processes; without assignments none is started.
        seed: the run's seed.
    """

    def __init__(
        self, board: JobBoard, assignments: Mapping[str, Assignment], *, workers: int, seed: int
    ) -> None:
        self.meter = Meter()
        self._board = board
        self._assignments = assignments
        self._seed = seed
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._fault: BaseException | None = None
        self._failed_starts = 0
        self._seats = [_Seat() for _ in range(workers if assignments else 0)]
        for seat in self._seats:
            self._start(seat)
        self._thread = threading.Thread(target=self._serve, name="reward-crew", daemon=True)
        self._thread.start()

    # The caller's side

    def post(self, ticket: Ticket) -> None:
        """Have the jobs of a ticket done; returns at once."""
        self._events.put(lambda: self._board.open(ticket))

    def ready(self) -> None:
        """Return once every worker has imported its functions.

        Raises:
            EngineError: workers cannot be started.
        """
        self._wait(lambda: not any(seat.starting for seat in self._seats))

    def wait_for(self, tickets: Sequence[Ticket]) -> None:
        """Return once every ticket is finished.

        Raises:
            RewardError: the error budget is spent.
            EngineError: workers cannot be started.
        """
        left = deque(tickets)

        def finished() -> bool:  # asked after every answer
            while left and left[0].finished:
                left.popleft()
            return not left

        self._wait(finished)

    def raise_fault(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        """End the workers. What was posted and is not finished is lost."""
        self._events.put(None)
        self._thread.join()
        if ray.is_initialized():
            for seat in self._seats:
                ray.kill(seat.worker)

    def _wait(self, until: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._fault or until())
        self.raise_fault()

    # The thread: everything below runs in it, except for the first _start of each seat

    def _serve(self) -> None:
        try:
            while True:
                try:
                    event = self._events.get(timeout=self._patience())
                except queue.Empty:
                    self._expire()
                else:
                    if event is None:
                        return
                    event()
                self._dispatch()
                self.meter.set(self._board.unfinished > 0)
                with self._changed:
                    self._changed.notify_all()
        except BaseException as error:  # raised again in the caller's thread
            with self._changed:
                self._fault = error
                self._changed.notify_all()

    def _patience(self) -> float | None:
        """Seconds until the next deadline."""
        deadlines = [seat.deadline for seat in self._seats if seat.busy]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _dispatch(self) -> None:
        for seat in self._seats:
            if not seat.busy and (jobs := self._board.several()):
                seat.jobs = jobs
                asked = [(job.term.name, job.samples, job.ticket.step) for job in jobs]
                self._await(seat, seat.worker.score_several.remote(asked), _limit(jobs))

    def _start(self, seat: _Seat) -> None:
        actor = ray.remote(num_cpus=0, max_restarts=0, runtime_env={"env_vars": dict(ENVIRONMENT)})
        seat.worker = actor(RewardWorker).remote(self._assignments, self._seed)
        seat.starting, seat.jobs = True, []
        self._await(seat, seat.worker.ready.remote(), START_SECONDS)

    def _await(self, seat: _Seat, answer: Any, seconds: float) -> None:
        """Have the answer come back as an event, and set the seat's clock."""
        seat.turn += 1
        seat.deadline = time.monotonic() + seconds + GRACE_SECONDS
        turn = seat.turn
        answer.future().add_done_callback(
            lambda future: self._events.put(lambda: self._answered(seat, turn, future))
        )

    def _answered(self, seat: _Seat, turn: int, future: Any) -> None:
        if turn != seat.turn:
            return
        error = future.exception()
        if error is not None:
            if not isinstance(error, ray.exceptions.RayActorError | ray.exceptions.OutOfMemoryError):
                raise error
            what = "its functions cannot be imported" if seat.starting else DIED
            self._replace(seat, Outcome("error", detail=f"{what}: {_reason(error)}"))
        elif seat.starting:
            seat.starting = False
            self._failed_starts = 0
        elif seat.jobs:
            self._told(seat, future.result())

    def _told(self, seat: _Seat, answers: Sequence[Answer]) -> None:
        spent = answers[-1] if answers[-1].exhausted else None
        for job, answer in zip(list(seat.jobs), answers, strict=False):
            if answer is not spent:
                seat.jobs.remove(job)
                self._board.done(job, answer.outcomes)
        if spent is not None:
            self._replace(seat, next(each for each in spent.outcomes if each.kind == "error"))

    def _expire(self) -> None:
        now = time.monotonic()
        for seat in self._seats:
            if seat.busy and seat.deadline <= now:
                limit = _limit(seat.jobs) if seat.jobs else START_SECONDS
                self._replace(seat, late(limit))

    def _replace(self, seat: _Seat, verdict: Outcome) -> None:
        """Start another worker for one that is stuck or gone, and settle the jobs it had: of several it is
        not known whose fault it was."""
        jobs = seat.jobs
        if not jobs:
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS:
                raise EngineError(
                    f"a reward worker failed to start {START_ATTEMPTS} times in a row: {verdict.detail}",
                    remedy="see whether the reward files import in a fresh process",
                )
        ray.kill(seat.worker)
        self._start(seat)
        if len(jobs) == 1:
            self._board.lost(jobs[0], verdict)
        else:
            self._board.singly(jobs)


def _limit(jobs: Sequence[Job]) -> float:
    """Seconds for jobs that one worker does in one go: several are over at once, so for one that is not."""
    return max(job.term.timeout for job in jobs)


def _reason(error: BaseException) -> str:
    """The telling line of Ray's message about a dead actor."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("remedy:")]
    return next((line for line in told if "exit type" in line), told[-1] if told else "unknown")
