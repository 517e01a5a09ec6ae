"""The pool of reward processes.

    pool = RewardPool(config, ...)     # functions resolved, workers starting
    pool.smoke(prompts)                # every term once, before any engine starts
    for group in rollout.sample(...):
        pool.submit(group)             # scored while other groups still sample
    scores = pool.collect()            # in the order of submission

A thread gives each worker one job at a time and watches the clock from outside, because a function
stuck in C code (a regular expression, an integer power) cannot be stopped from inside. A worker
that passes the limit or dies is replaced, and the run goes on. Functions run in their worker's main
thread, which ``signal.alarm`` (math-verify) needs.
"""

from __future__ import annotations

import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from align.config.rewards import RewardsConfig
from align.errors import EngineError
from align.reward.contract import Sample
from align.reward.jobs import Job, JobBoard, Ticket
from align.reward.ledger import Ledger, summary
from align.reward.registry import resolve
from align.reward.score import call
from align.reward.terms import Predicate, check_smoke, load_terms, probes
from align.seed import derive_seed
from align.types import Group, Outcome, Prompt, SampleScore

GRACE_SECONDS = 0.5
"""Added to every limit for the way to the worker and back."""
START_SECONDS = 120.0
"""A worker must have imported its functions by then."""
START_ATTEMPTS = 3
"""Starts that may fail in a row."""


class RewardWorker:
    """Calls reward functions in a process of its own."""

    def __init__(self, functions: Mapping[str, tuple[str, Mapping[str, Any]]], seed: int) -> None:
        self._functions = {term: resolve(reference, args) for term, (reference, args) in functions.items()}
        self._seed = seed

    def ready(self) -> None:
        """Returns once the functions are imported."""

    def score(self, term: str, samples: Sequence[Sample], timeout: float, step: int) -> list[Outcome]:
        """One outcome a sample. ``random`` and NumPy are seeded per call, whichever worker runs it."""

        def seed(sample: Sample) -> None:
            value = derive_seed(self._seed, "reward", term, step, sample.prompt_id, sample.sample_index)
            random.seed(value)
            if "numpy" in sys.modules:
                sys.modules["numpy"].random.seed(value % 2**32)

        return call(self._functions[term], samples, timeout=timeout, before=seed)


@dataclass(slots=True)
class _Seat:
    """One place in the pool: the worker that holds it now and what it was asked."""

    worker: Any = None
    starting: bool = False
    job: Job | None = None
    deadline: float = 0.0
    turn: int = 0
    """Counts the questions: an answer to an earlier one is stale."""

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return self.starting or self.job is not None


class RewardPool:
    """The reward bank as the loop sees it (``align.types.Rewards``), on Ray actors.

    Args:
        config: the section ``rewards``.
        seed: the recipe's seed.
        compile_expression: turns the text of ``where`` into a predicate over the row's columns.
        max_new_tokens: the limit under which completions are sampled.
        run_dir: failures are written to ``reward_errors.jsonl`` in it.
        recipe: the recipe file, for messages.

    Raises:
        RewardError: a function cannot be found or imported.
    """

    def __init__(
        self,
        config: RewardsConfig,
        *,
        seed: int,
        compile_expression: Callable[[str], Predicate],
        max_new_tokens: int,
        run_dir: Path,
        recipe: str | Path | None = None,
    ) -> None:
        self.terms = load_terms(config, compile_expression, file=recipe)
        self._seed = seed
        self._max_new_tokens = max_new_tokens
        ledger = Ledger(
            run_dir / "reward_errors.jsonl", budget=config.error_budget, window=config.error_window
        )
        self._board = JobBoard(self.terms, ledger)
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._fault: BaseException | None = None
        self._tickets: list[Ticket] = []
        self._first_submit = 0.0
        self._metrics: dict[str, float] = {}
        self._failed_starts = 0
        self._seats = [_Seat() for _ in range(config.workers)]
        for seat in self._seats:
            self._start(seat)
        self._thread = threading.Thread(target=self._serve, name="reward-pool", daemon=True)
        self._thread.start()

    # What the loop calls

    def smoke(self, prompts: Sequence[Prompt]) -> None:
        """Call every term on made-up answers to ``prompts`` (give one of every mixture part).

        Raises:
            RewardError: a term raised, hung, killed its worker or returned something that is no score.
        """
        tickets = [
            self._post(probes([prompt], max_new_tokens=self._max_new_tokens), step=0, trial=True)
            for prompt in prompts
        ]
        self._wait_for(tickets)
        for ticket in tickets:
            for term in ticket.terms:
                check_smoke(term, ticket.samples, [outcomes[term.name] for outcomes in ticket.outcomes])

    def submit(self, group: Group) -> None:
        """Start scoring a finished group; returns at once.

        Raises:
            RewardError: the error budget is spent.
        """
        self._raise_fault()
        samples = [
            Sample.of(group.prompt, completion, max_new_tokens=self._max_new_tokens)
            for completion in group.completions
        ]
        if not self._tickets:
            self._first_submit = time.monotonic()
        step = group.completions[0].weight_version if group.completions else 0
        self._tickets.append(self._post(samples, step=step))

    def collect(self) -> list[SampleScore]:
        """Wait for everything submitted; scores in (prompt, sample) order of submission.

        Raises:
            RewardError: the error budget is spent.
            EngineError: workers cannot be started.
        """
        begin = time.monotonic()
        tickets, self._tickets = self._tickets, []
        self._wait_for(tickets)
        scores = [ticket.scores[row] for ticket in tickets for row in range(len(ticket.samples))]
        self._metrics = summary(self.terms, scores)
        if tickets:
            now = time.monotonic()
            self._metrics["reward/wall_seconds"] = now - self._first_submit
            self._metrics["reward/wait_seconds"] = now - begin
        return scores

    def metrics(self) -> dict[str, float]:
        """Figures of the last ``collect``: those of ``align.reward.ledger.summary``, and the seconds
        from the first submission to the last score (wall) and inside ``collect`` (wait)."""
        return dict(self._metrics)

    def close(self) -> None:
        """End the workers. What was submitted and not collected is lost."""
        self._events.put(None)
        self._thread.join()
        if ray.is_initialized():
            for seat in self._seats:
                ray.kill(seat.worker)

    # The caller's side of the thread

    def _post(self, samples: list[Sample], *, step: int, trial: bool = False) -> Ticket:
        ticket = self._board.ticket(samples, step=step, trial=trial)
        self._events.put(lambda: self._board.open(ticket))
        return ticket

    def _wait_for(self, tickets: Sequence[Ticket]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._fault or all(ticket.finished for ticket in tickets))
        self._raise_fault()

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

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
            if not seat.busy and (job := self._board.next()):
                seat.job = job
                limit = job.term.timeout
                answer = seat.worker.score.remote(job.term.name, job.samples, limit, job.ticket.step)
                self._await(seat, answer, limit)

    def _start(self, seat: _Seat) -> None:
        functions = {term.name: (term.function.reference, term.function.args) for term in self.terms}
        actor = ray.remote(num_cpus=0, max_restarts=0, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
        seat.worker = actor(RewardWorker).remote(functions, self._seed)
        seat.starting, seat.job = True, None
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
            if not isinstance(error, ray.exceptions.RayActorError):
                raise error
            what = "its functions cannot be imported" if seat.starting else "the call ended its process"
            self._replace(seat, Outcome("error", detail=f"{what}: {_reason(error)}"))
        elif seat.starting:
            seat.starting = False
            self._failed_starts = 0
        elif seat.job is not None:
            job, seat.job = seat.job, None
            self._board.done(job, future.result())

    def _expire(self) -> None:
        now = time.monotonic()
        for seat in self._seats:
            if seat.busy and seat.deadline <= now:
                limit = seat.job.term.timeout if seat.job else START_SECONDS
                self._replace(seat, Outcome("timeout", detail=f"no answer within {limit:g} s", seconds=limit))

    def _replace(self, seat: _Seat, verdict: Outcome) -> None:
        """Start another worker for one that is stuck or gone, and settle the job it had."""
        job = seat.job
        if job is None:
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS:
                raise EngineError(
                    f"a reward worker failed to start {START_ATTEMPTS} times in a row: {verdict.detail}",
                    remedy="see whether the reward files import in a fresh process",
                )
        ray.kill(seat.worker)
        self._start(seat)
        if job is not None:
            self._board.lost(job, verdict)


def _reason(error: BaseException) -> str:
    """The telling line of Ray's message about a dead actor."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith("remedy:")]
    return next((line for line in told if "exit type" in line), told[-1] if told else "unknown")
