"""Who computes what: groups split into jobs, outcomes put together again. No processes, no clocks.

    board = JobBoard(terms, ledger)
    ticket = board.ticket(samples, step=3)
    board.open(ticket)
    while job := board.next():
        board.done(job, outcomes)          # or board.lost(job, verdict) for a dead or stuck worker
    ticket.outcomes                        # complete once ticket.finished

A job is one term on some samples of one group: as many as take about a quarter of a second, so that
slow rewards spread over the workers. A function marked as batched always gets its whole group, and
fails as a whole: what it would say of one sample alone is another score. Lists in TRL's form and
coroutines stay whole while that is fast; a slow list is cut like single samples, slow coroutines, which
run together, into one share a worker. Any other job of several samples that is lost is tried again one
sample at a time, so that only the sample at fault gets the failure.

Terms that a trained model computes are not on the board: ``JobBoard.modelled`` takes their outcomes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from align.reward.bank.combine import FAILED
from align.reward.bank.ledger import Ledger
from align.reward.bank.terms import Term
from align.reward.contract import Sample
from align.reward.functions.registry import RewardFunction
from align.types import Outcome

JOB_SECONDS = 0.25
"""Aim for the length of a job of several samples."""
WARY_SAMPLES = 256
"""After a term has cost a worker, so many of its samples go singly: a job of several that is lost costs
a second worker when the sample at fault is tried again."""


@dataclass(slots=True)
class Ticket:
    """The samples of one group on their way through the terms."""

    samples: list[Sample]
    terms: list[Term]
    """Those that cover the row."""
    step: int
    """Version of the weights that sampled the group."""
    trial: bool
    """A smoke call: its failures are the caller's to raise; they are neither counted nor written."""
    outcomes: list[dict[str, Outcome]]
    """Per sample, by term, as they come in."""
    unfinished: int
    """Samples that still wait for a function."""

    @property
    def finished(self) -> bool:
        """Whether every function has answered for every sample."""
        return self.unfinished == 0

    @property
    def modelled(self) -> list[Term]:
        """The terms that a trained model computes."""
        return [term for term in self.terms if term.function is None]


@dataclass(frozen=True, slots=True)
class Job:
    """One term on some samples of a ticket."""

    ticket: Ticket
    term: Term
    rows: list[int]
    alone: bool = False
    """It was among several that cost a worker: no other goes with it, so that it is known which it was."""

    @property
    def samples(self) -> list[Sample]:
        """The samples to score."""
        return [self.ticket.samples[row] for row in self.rows]

    @property
    def divisible(self) -> bool:
        """Whether it can be done one sample at a time."""
        function = self.term.function
        return len(self.rows) > 1 and function is not None and not function.compares


class JobBoard:
    """Open jobs, and what is known of the finished ones. One thread only, except for ``ticket``.

    Args:
        terms: all terms of the run.
        ledger: told of failures and of every finished sample.
        workers: processes that the jobs are spread over.
    """

    def __init__(self, terms: Sequence[Term], ledger: Ledger, *, workers: int = 1) -> None:
        self._terms = terms
        self._ledger = ledger
        self._workers = workers
        self._waiting: deque[Job] = deque()
        self._pace: dict[str, float] = {}
        """Seconds a sample takes, by term: a running mean."""
        self._wary: dict[str, int] = {}
        """Samples that still go singly, by term."""
        self.unfinished = 0
        """Tickets on the board whose functions have not all answered."""

    def ticket(self, samples: list[Sample], *, step: int, trial: bool = False) -> Ticket:
        """A ticket for the samples of one prompt.

        Raises:
            AlignError: a ``where`` expression cannot be evaluated on the row.
        """
        columns = samples[0].columns if samples else {}
        inside = [term for term in self._terms if term.covers(columns)]
        return Ticket(samples, inside, step, trial, [{} for _ in samples], len(samples))

    def open(self, ticket: Ticket) -> None:
        """Put the jobs of a ticket on the board."""
        rows = list(range(len(ticket.samples)))
        self.unfinished += bool(rows)
        for term in ticket.terms:
            if term.function is not None:
                size = self._job_size(term, term.function, len(rows))
                chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
                self._waiting.extend(Job(ticket, term, chunk) for chunk in chunks)
        for row in rows:
            self._finish(ticket, row)

    def next(self) -> Job | None:
        """Take the next job off the board."""
        return self._waiting.popleft() if self._waiting else None

    def several(self) -> list[Job]:
        """Take jobs off the board that one worker does in one go: the next, and those after it that are
        known to be short, as long as others have as many. Asking a worker costs more than a short job."""
        most = -(-len(self._waiting) // self._workers)
        found: list[Job] = []
        seconds = 0.0
        while self._waiting and len(found) < most:
            expected = self._expected(self._waiting[0])
            seconds += expected
            if found and seconds > JOB_SECONDS:
                break
            found.append(self._waiting.popleft())
        return found

    def singly(self, jobs: Sequence[Job]) -> None:
        """Jobs that cost a worker together go back, to be done one by one."""
        self._waiting.extendleft(replace(job, alone=True) for job in reversed(jobs))

    def done(self, job: Job, outcomes: Sequence[Outcome]) -> None:
        """A worker answered, with one outcome per sample of the job.

        Raises:
            BudgetSpent: too many samples failed.
        """
        if job.divisible and all(outcome.kind == "timeout" for outcome in outcomes):
            return self._again_singly(job)  # one coroutine over the whole list: who was slow?
        seconds = sum(outcome.seconds for outcome in outcomes) / len(outcomes)
        self._pace[job.term.name] = 0.5 * (self._pace.get(job.term.name, seconds) + seconds)
        for row, outcome in zip(job.rows, outcomes, strict=True):
            self._record(job, row, outcome)

    def lost(self, job: Job, verdict: Outcome) -> None:
        """A worker died, got stuck or ran out of memory over this job.

        Raises:
            BudgetSpent: too many samples failed.
        """
        self._wary[job.term.name] = WARY_SAMPLES
        if job.divisible:
            return self._again_singly(job)
        share = replace(verdict, seconds=verdict.seconds / len(job.rows))
        for row in job.rows:
            self._record(job, row, share)

    def modelled(self, ticket: Ticket, outcomes: Sequence[Mapping[str, Outcome]]) -> None:
        """Add what the trained models said of a ticket's samples; after its functions have answered.

        Args:
            ticket: a finished ticket.
            outcomes: per sample, by term.

        Raises:
            BudgetSpent: too many samples failed.
        """
        for sample, found, added in zip(ticket.samples, ticket.outcomes, outcomes, strict=True):
            counted = not added or _failed(found)
            found.update(added)
            if ticket.trial:
                continue
            for term in ticket.modelled:
                if added[term.name].kind in FAILED:
                    self._ledger.failure(term, sample, added[term.name], weight_version=ticket.step)
            if not counted:
                self._ledger.count(_failed(found))

    def _expected(self, job: Job) -> float:
        """Seconds that a job takes; endless where that is not known, or where it waits for a service."""
        function, pace = job.term.function, self._pace.get(job.term.name)
        if job.alone or pace is None or function is None or function.awaits:
            return math.inf
        return math.inf if self._wary.get(job.term.name, 0) > 0 else pace * len(job.rows)

    def _job_size(self, term: Term, function: RewardFunction, samples: int) -> int:
        if function.compares:
            return max(samples, 1)
        pace = self._pace.get(term.name)
        if function.batched or function.awaits:
            if pace is None or pace * samples <= JOB_SECONDS:
                return max(samples, 1)
            if function.awaits:
                return -(-samples // self._workers)
        elif (wary := self._wary.get(term.name, 0)) > 0:
            self._wary[term.name] = wary - samples
            return 1
        aim = min(JOB_SECONDS, term.timeout / 2)
        return 1 if pace is None else max(1, min(samples, int(aim / max(pace, 1e-9))))

    def _again_singly(self, job: Job) -> None:
        self._waiting.extendleft(Job(job.ticket, job.term, [row]) for row in reversed(job.rows))

    def _record(self, job: Job, row: int, outcome: Outcome) -> None:
        ticket = job.ticket
        ticket.outcomes[row][job.term.name] = outcome
        if outcome.kind in FAILED and not ticket.trial:
            function = job.term.function
            at_once = function is not None and (function.batched or function.awaits)
            self._ledger.failure(
                job.term,
                ticket.samples[row],
                outcome,
                weight_version=ticket.step,
                together=job.samples if at_once else (),
            )
        self._finish(ticket, row)

    def _finish(self, ticket: Ticket, row: int) -> None:
        """Settle a sample once the last of its functions has answered."""
        outcomes = ticket.outcomes[row]
        if len(outcomes) < len(ticket.terms) - len(ticket.modelled):
            return
        ticket.unfinished -= 1
        self.unfinished -= ticket.finished
        called = bool(ticket.terms) and not ticket.trial  # a row without terms says nothing of failures
        if called and (_failed(outcomes) or not ticket.modelled):
            self._ledger.count(_failed(outcomes))


def _failed(outcomes: Mapping[str, Outcome]) -> bool:
    return any(outcome.kind in FAILED for outcome in outcomes.values())
