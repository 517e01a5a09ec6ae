"""The board alone: the tests play the workers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from align.reward.contract import Sample
from align.reward.jobs import JobBoard
from align.reward.ledger import BudgetSpent, Ledger
from align.reward.registry import resolve
from align.reward.terms import Term
from align.types import Outcome

Write = Callable[[str, str], str]


@pytest.fixture
def one(write: Write) -> Term:
    return Term("one", resolve(write("one.py", "def one(sample): return 1.0\n")), timeout=4.0)


@pytest.fixture
def whole(write: Write) -> Term:
    return Term("whole", resolve(write("whole.py", "def whole(samples): return [1.0] * len(samples)\n")))


def group(size: int, **columns: object) -> list[Sample]:
    return [
        Sample((), f"text {index}", columns=columns, prompt_id="p/0", sample_index=index)
        for index in range(size)
    ]


def ledger(tmp_path: Path, budget: float = 1.0, window: int = 8) -> Ledger:
    return Ledger(tmp_path / "run" / "reward_errors.jsonl", budget=budget, window=window)


def fast(count: int) -> list[Outcome]:
    return [Outcome("ok", float(row), seconds=0.001) for row in range(count)]


def test_unknown_pace_means_single_samples_and_a_known_one_fills_a_quarter_second(
    tmp_path: Path, one: Term
) -> None:
    board = JobBoard([one], ledger(tmp_path))
    board.open(board.ticket(group(4), step=1))
    jobs = [board.next() for _ in range(4)]
    assert [job.rows for job in jobs if job] == [[0], [1], [2], [3]]
    assert board.next() is None
    assert jobs[0] is not None
    board.done(jobs[0], [Outcome("ok", 1.0, seconds=0.1)])
    board.open(board.ticket(group(5), step=1))
    sizes = [len(job.rows) for job in iter(board.next, None)]
    assert sizes == [2, 2, 1]


def test_slow_terms_stay_single(tmp_path: Path, one: Term) -> None:
    board = JobBoard([one], ledger(tmp_path))
    board.open(board.ticket(group(1), step=1))
    job = board.next()
    assert job is not None
    board.done(job, [Outcome("ok", 1.0, seconds=1.0)])
    board.open(board.ticket(group(3), step=1))
    assert [len(job.rows) for job in iter(board.next, None)] == [1, 1, 1]


def test_lists_go_whole_and_scores_wait_for_all_terms(tmp_path: Path, one: Term, whole: Term) -> None:
    board = JobBoard([whole, one], ledger(tmp_path))
    ticket = board.ticket(group(2), step=1)
    board.open(ticket)
    job = board.next()
    assert job is not None
    assert (job.term.name, job.rows) == ("whole", [0, 1])
    board.done(job, fast(2))
    assert not ticket.finished
    for job in iter(board.next, None):
        board.done(job, [Outcome("ok", 10.0)])
    assert ticket.finished
    assert [ticket.scores[row].reward for row in range(2)] == [10.0, 11.0]


def test_scope_is_asked_per_row_and_an_uncovered_row_is_finished_at_once(tmp_path: Path, one: Term) -> None:
    term = Term("one", one.function, applies=lambda columns: columns["kind"] == "maths")
    board = JobBoard([term], ledger(tmp_path))
    ticket = board.ticket(group(2, kind="chat"), step=1)
    board.open(ticket)
    assert board.next() is None
    assert ticket.finished
    assert [(score.reward, score.terms) for score in ticket.scores.values()] == [(None, {}), (None, {})]


def test_a_lost_list_is_tried_again_singly(tmp_path: Path, whole: Term) -> None:
    board = JobBoard([whole], ledger(tmp_path))
    ticket = board.ticket(group(3), step=5)
    board.open(ticket)
    job = board.next()
    assert job is not None
    board.lost(job, Outcome("timeout", detail="no answer within 10 s"))
    singles = list(iter(board.next, None))
    assert [job.rows for job in singles] == [[0], [1], [2]]
    board.done(singles[0], [Outcome("ok", 1.0)])
    board.lost(singles[1], Outcome("timeout", detail="no answer within 10 s"))
    board.done(singles[2], [Outcome("ok", 3.0)])
    assert [ticket.scores[row].reward for row in range(3)] == [1.0, None, 3.0]
    [row] = [json.loads(line) for line in (tmp_path / "run" / "reward_errors.jsonl").read_text().splitlines()]
    assert (row["kind"], row["sample_index"], row["completion"], row["weight_version"]) == (
        "timeout",
        1,
        "text 1",
        5,
    )


def test_a_list_whose_coroutine_timed_out_is_tried_again_singly(tmp_path: Path, whole: Term) -> None:
    board = JobBoard([whole], ledger(tmp_path))
    board.open(board.ticket(group(2), step=1))
    job = board.next()
    assert job is not None
    board.done(job, [Outcome("timeout")] * 2)
    assert [job.rows for job in iter(board.next, None)] == [[0], [1]]


def test_trials_are_neither_written_nor_counted(tmp_path: Path, one: Term) -> None:
    board = JobBoard([one], ledger(tmp_path, budget=0.0))
    ticket = board.ticket(group(1), step=0, trial=True)
    board.open(ticket)
    job = board.next()
    assert job is not None
    board.lost(job, Outcome("error", detail="boom"))
    assert ticket.finished
    assert not (tmp_path / "run").exists()


def test_budget_is_a_share_of_the_whole_window(tmp_path: Path, one: Term) -> None:
    board = JobBoard([one], ledger(tmp_path, budget=0.25, window=8))  # the third failure of eight is too many
    board.open(board.ticket(group(12), step=1))
    jobs = list(iter(board.next, None))
    boom = [Outcome("error", detail="Traceback\nValueError: first")]
    later = [Outcome("error", detail="Traceback\nValueError: later")]
    board.done(jobs[0], boom)
    board.done(jobs[1], later)
    for job in jobs[2:8]:
        board.done(job, [Outcome("ok", 1.0)])
    board.done(jobs[8], later)  # the first has left the window
    board.done(jobs[9], later)
    with pytest.raises(BudgetSpent, match="3 of the last 8 samples") as caught:
        board.done(jobs[10], later)
    assert "ValueError: first" in caught.value.message
    assert caught.value.exit_code == 1
    assert caught.value.key == "one"
