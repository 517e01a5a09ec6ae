"""Who computes what: groups split into jobs, outcomes put together again. No processes, no clocks.

    board = JobBoard(terms, ledger)
    ticket = board.ticket(samples, step=3)
    board.open(ticket)
    while job := board.next():
        board.done(job, outcomes)          # or board.lost(job, verdict) for a dead or stuck worker
    ticket.scores

A job is one term on some samples of one group: all of them for functions that take lists or are
coroutines, else as many as take about a quarter of a second, so that slow rewards spread over the
workers. A job of several samples that is lost is tried again one sample at a time, so that only the
sample at fault gets the failure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from align.reward.combine import combine
from align.reward.contract import Sample
from align.reward.ledger import FAILED, Ledger
from align.reward.terms import Term
from align.types import Outcome, SampleScore

JOB_SECONDS = 0.25
"""Aim for the length of a job of several samples."""


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
    scores: dict[int, SampleScore] = field(default_factory=dict)
    """By sample, once all its outcomes are in."""

    @property
    def finished(self) -> bool:
        """Whether every sample has its score."""
        return len(self.scores) == len(self.samples)


@dataclass(frozen=True, slots=True)
class Job:
    """One term on some samples of a ticket."""

    ticket: Ticket
    term: Term
    rows: list[int]

    @property
    def samples(self) -> list[Sample]:
        """The samples to score."""
        return [self.ticket.samples[row] for row in self.rows]


class JobBoard:
    """Open jobs, and what is known of the finished ones. One thread only, except for ``ticket``."""

    def __init__(self, terms: Sequence[Term], ledger: Ledger) -> None:
        self._terms = terms
        self._ledger = ledger
        self._waiting: deque[Job] = deque()
        self._pace: dict[str, float] = {}
        """Seconds a sample takes, by term: a running mean."""

    def ticket(self, samples: list[Sample], *, step: int, trial: bool = False) -> Ticket:
        """A ticket for the samples of one prompt.

        Raises:
            AlignError: a ``where`` expression cannot be evaluated on the row.
        """
        columns = samples[0].columns if samples else {}
        inside = [term for term in self._terms if term.covers(columns)]
        return Ticket(samples, inside, step, trial, [{} for _ in samples])

    def open(self, ticket: Ticket) -> None:
        """Put the jobs of a ticket on the board."""
        rows = list(range(len(ticket.samples)))
        for term in ticket.terms:
            size = self._job_size(term, len(rows))
            chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
            self._waiting.extend(Job(ticket, term, chunk) for chunk in chunks)
        for row in rows:
            self._finish(ticket, row)

    def next(self) -> Job | None:
        """Take the next job off the board."""
        return self._waiting.popleft() if self._waiting else None

    def done(self, job: Job, outcomes: Sequence[Outcome]) -> None:
        """A worker answered, with one outcome per sample of the job.

        Raises:
            BudgetSpent: too many samples failed.
        """
        if len(job.rows) > 1 and all(outcome.kind == "timeout" for outcome in outcomes):
            return self._again_singly(job)  # one coroutine over the whole list: who was slow?
        seconds = sum(outcome.seconds for outcome in outcomes) / len(outcomes)
        self._pace[job.term.name] = 0.5 * (self._pace.get(job.term.name, seconds) + seconds)
        for row, outcome in zip(job.rows, outcomes, strict=True):
            self._record(job, row, outcome)

    def lost(self, job: Job, verdict: Outcome) -> None:
        """A worker died or got stuck over this job.

        Raises:
            BudgetSpent: too many samples failed.
        """
        if len(job.rows) > 1:
            return self._again_singly(job)
        self._record(job, job.rows[0], verdict)

    def _job_size(self, term: Term, samples: int) -> int:
        if term.function.batched or term.function.awaits:
            return max(samples, 1)
        pace = self._pace.get(term.name)
        aim = min(JOB_SECONDS, term.timeout / 2)
        return 1 if pace is None else max(1, min(samples, int(aim / max(pace, 1e-9))))

    def _again_singly(self, job: Job) -> None:
        self._waiting.extendleft(Job(job.ticket, job.term, [row]) for row in reversed(job.rows))

    def _record(self, job: Job, row: int, outcome: Outcome) -> None:
        ticket = job.ticket
        ticket.outcomes[row][job.term.name] = outcome
        if outcome.kind in FAILED and not ticket.trial:
            self._ledger.failure(job.term, ticket.samples[row], outcome, weight_version=ticket.step)
        self._finish(ticket, row)

    def _finish(self, ticket: Ticket, row: int) -> None:
        if len(ticket.outcomes[row]) < len(ticket.terms):
            return
        sample = ticket.samples[row]
        score = combine(
            ticket.terms, ticket.outcomes[row], prompt_id=sample.prompt_id, sample_index=sample.sample_index
        )
        ticket.scores[row] = score
        if not ticket.trial:
            self._ledger.count(score)
