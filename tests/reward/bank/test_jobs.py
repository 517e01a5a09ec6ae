"""The board alone: the tests play the workers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from align.reward.bank.jobs import JobBoard
from align.reward.bank.ledger import BudgetSpent, Ledger
from align.reward.bank.terms import Term
from align.reward.contract import Sample
from align.reward.functions.registry import resolve
from align.types import Outcome

Write = Callable[[str, str], str]


@pytest.fixture
def one(write: Write) -> Term:
    return Term("one", resolve(write("one.py", "def one(sample): return 1.0\n")), timeout=4.0)


@pytest.fixture
def whole(write: Write) -> Term:
    return Term("whole", resolve(write("whole.py", "def whole(samples): return [1.0] * len(samples)\n")))


@pytest.fixture
def listed(write: Write) -> Term:
    return Term("listed", resolve(write("listed.py", "def f(completions, **kwargs): return [1.0]\n")))


@pytest.fixture
def waiting(write: Write) -> Term:
    return Term("waiting", resolve(write("waiting.py", "async def f(sample): return 1.0\n")))


MODEL = Term("model", None, model="runs/rm")


def sizes(board: JobBoard, samples: int) -> list[int]:
    """Of the jobs that a fresh group makes."""
    board.open(board.ticket(group(samples), step=1))
    return [len(job.rows) for job in iter(board.next, None)]


def paced(term: Term, seconds: float, tmp_path: Path, workers: int) -> JobBoard:
    """A board that has seen one call of the term."""
    board = JobBoard([term], ledger(tmp_path), workers=workers)
    board.open(board.ticket(group(1), step=1))
    job = board.next()
    assert job is not None
    board.done(job, [Outcome("ok", 1.0, seconds=seconds)])
    return board


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
    assert [{name: each.value for name, each in row.items()} for row in ticket.outcomes] == [
        {"whole": 0.0, "one": 10.0},
        {"whole": 1.0, "one": 10.0},
    ]


def test_scope_is_asked_per_row_and_an_uncovered_row_is_finished_at_once(tmp_path: Path, one: Term) -> None:
    term = Term("one", one.function, applies=lambda columns: columns["kind"] == "maths")
    board = JobBoard([term], ledger(tmp_path))
    ticket = board.ticket(group(2, kind="chat"), step=1)
    board.open(ticket)
    assert board.next() is None
    assert ticket.finished
    assert ticket.outcomes == [{}, {}]
    assert board.unfinished == 0


def test_a_lost_list_is_tried_again_singly(tmp_path: Path, listed: Term) -> None:
    board = JobBoard([listed], ledger(tmp_path))
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
    assert [row["listed"].value for row in ticket.outcomes] == [1.0, None, 3.0]
    [row] = [json.loads(line) for line in (tmp_path / "run" / "reward_errors.jsonl").read_text().splitlines()]
    assert (row["kind"], row["sample_index"], row["completion"], row["weight_version"]) == (
        "timeout",
        1,
        "text 1",
        5,
    )


def test_a_list_whose_coroutine_timed_out_is_tried_again_singly(tmp_path: Path, listed: Term) -> None:
    board = JobBoard([listed], ledger(tmp_path))
    board.open(board.ticket(group(2), step=1))
    job = board.next()
    assert job is not None
    board.done(job, [Outcome("timeout")] * 2)
    assert [job.rows for job in iter(board.next, None)] == [[0], [1]]


@pytest.mark.parametrize(
    "verdict",
    [Outcome("timeout", detail="no answer within 10 s", seconds=9.0), Outcome("error", detail="died")],
)
def test_a_lost_comparison_fails_its_whole_group(tmp_path: Path, whole: Term, verdict: Outcome) -> None:
    """A lone sample differs from nobody: what the function says of it is no score of the group's."""
    board = JobBoard([whole], ledger(tmp_path))
    ticket = board.ticket(group(3), step=5)
    board.open(ticket)
    job = board.next()
    assert job is not None
    board.lost(job, verdict)
    assert board.next() is None
    assert (ticket.finished, board.unfinished) == (True, 0)
    outcomes = [row["whole"] for row in ticket.outcomes]
    assert [(each.kind, each.detail) for each in outcomes] == [(verdict.kind, verdict.detail)] * 3
    assert sum(each.seconds for each in outcomes) == verdict.seconds
    rows = [json.loads(line) for line in (tmp_path / "run" / "reward_errors.jsonl").read_text().splitlines()]
    assert [(row["sample_index"], row["kind"], len(row["together"])) for row in rows] == [
        (index, verdict.kind, 3) for index in range(3)
    ]


def test_a_comparison_whose_coroutine_timed_out_fails_its_whole_group(tmp_path: Path, whole: Term) -> None:
    board = JobBoard([whole], ledger(tmp_path, budget=0.25, window=8))
    ticket = board.ticket(group(2), step=1)
    board.open(ticket)
    job = board.next()
    assert job is not None
    board.done(job, [Outcome("timeout")] * 2)
    assert board.next() is None
    assert [row["whole"].kind for row in ticket.outcomes] == ["timeout"] * 2
    ticket = board.ticket(group(2), step=1)
    board.open(ticket)
    job = board.next()
    assert job is not None
    with pytest.raises(BudgetSpent, match="3 of the last 3 samples"):  # each sample counts
        board.lost(job, Outcome("error", detail="died"))


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


@pytest.mark.parametrize("terms", ["function", "model", "both"])
def test_rows_that_no_term_covers_are_not_in_the_window(tmp_path: Path, one: Term, terms: str) -> None:
    function = Term("one", one.function, applies=lambda columns: "answer" in columns)
    model = Term("model", None, model="runs/rm", applies=lambda columns: "answer" in columns)
    book = ledger(tmp_path, budget=0.5, window=4)
    board = JobBoard({"function": [function], "model": [model], "both": [function, model]}[terms], book)
    boom = Outcome("error", detail="boom")

    def score(**columns: object) -> None:
        ticket = board.ticket(group(1, **columns), step=1)
        board.open(ticket)
        for job in iter(board.next, None):
            board.done(job, [boom])
        board.modelled(ticket, [{term.name: boom for term in ticket.modelled}])

    for _ in range(2):
        score(answer=1)
        for _ in range(4):
            score()
    assert book.state_dict()["window"] == [1, 1]
    with pytest.raises(BudgetSpent, match="3 of the last 3 samples"):
        score(answer=1)


def test_a_slow_list_is_cut_and_a_fast_one_stays_whole(tmp_path: Path, listed: Term) -> None:
    assert sizes(JobBoard([listed], ledger(tmp_path), workers=4), 8) == [8]  # pace unknown
    assert sizes(paced(listed, 0.01, tmp_path, workers=4), 8) == [8]
    assert sizes(paced(listed, 0.1, tmp_path, workers=4), 8) == [2, 2, 2, 2]
    assert sizes(paced(listed, 1.0, tmp_path, workers=4), 3) == [1, 1, 1]


def test_after_a_lost_worker_samples_go_singly_for_a_while(tmp_path: Path, one: Term) -> None:
    board = paced(one, 0.001, tmp_path, workers=1)
    assert sizes(board, 200) == [200]
    board.open(board.ticket(group(2), step=1))
    job = board.next()
    assert job is not None
    board.lost(job, Outcome("error", detail="died"))
    assert [len(each.rows) for each in iter(board.next, None)] == [1, 1]
    assert sizes(board, 200) == [1] * 200
    assert sizes(board, 200) == [1] * 200  # 56 were left
    assert sizes(board, 200) == [200]


def test_slow_coroutines_are_shared_out_evenly(tmp_path: Path, waiting: Term) -> None:
    assert sizes(paced(waiting, 0.001, tmp_path, workers=3), 8) == [8]
    assert sizes(paced(waiting, 1.0, tmp_path, workers=3), 8) == [3, 3, 2]


def test_a_batched_function_keeps_its_group_however_slow(tmp_path: Path, whole: Term) -> None:
    assert sizes(paced(whole, 5.0, tmp_path, workers=3), 8) == [8]


def test_models_complete_a_finished_ticket(tmp_path: Path, one: Term) -> None:
    board = JobBoard([one, MODEL], ledger(tmp_path, budget=0.5, window=4))
    ticket = board.ticket(group(4), step=2)
    board.open(ticket)
    assert board.unfinished == 1
    for job in iter(board.next, None):
        board.done(job, [Outcome("error", detail="boom") if job.rows == [0] else Outcome("ok", 1.0)])
    assert (ticket.finished, board.unfinished) == (True, 0)
    late, good = Outcome("error", detail="too long"), Outcome("ok", 2.0)
    with pytest.raises(BudgetSpent, match="3 of the last 3 samples"):  # sample 0 is counted once
        board.modelled(ticket, [{"model": outcome} for outcome in (late, late, late, good)])
    rows = [json.loads(line) for line in (tmp_path / "run" / "reward_errors.jsonl").read_text().splitlines()]
    assert [(row["term"], row["sample_index"]) for row in rows] == [
        ("one", 0),
        ("model", 0),
        ("model", 1),
        ("model", 2),
    ]


def test_a_failed_list_is_recorded_with_all_its_samples(tmp_path: Path, whole: Term, one: Term) -> None:
    board = JobBoard([whole, one], ledger(tmp_path))
    board.open(board.ticket(group(2), step=1))
    for job in iter(board.next, None):
        board.done(job, [Outcome("error", detail="boom")] * len(job.rows))
    rows = [json.loads(line) for line in (tmp_path / "run" / "reward_errors.jsonl").read_text().splitlines()]
    assert [(row["term"], len(row.get("together", ()))) for row in rows] == [
        ("whole", 2),
        ("whole", 2),
        ("one", 0),
        ("one", 0),
    ]


def test_short_jobs_go_together_as_long_as_the_other_workers_have_as_many(tmp_path: Path, one: Term) -> None:
    board = paced(one, 0.01, tmp_path, workers=2)
    for _ in range(30):
        board.open(board.ticket(group(4), step=1))  # of 0.04 s each
    taken = [board.several() for _ in range(2)]
    assert [len(jobs) for jobs in taken] == [6, 6]  # a quarter of a second
    while board.several():
        pass
    for _ in range(3):
        board.open(board.ticket(group(4), step=1))
    assert [len(board.several()) for _ in range(3)] == [2, 1, 0]


def test_a_job_of_unknown_length_goes_alone(tmp_path: Path, one: Term, waiting: Term) -> None:
    board = JobBoard([one, waiting], ledger(tmp_path))
    for _ in range(2):
        board.open(board.ticket(group(1), step=1))
    assert [[job.term.name for job in jobs] for jobs in iter(board.several, [])] == [["one"], ["waiting"]] * 2
    board = paced(waiting, 0.001, tmp_path, workers=1)  # a service
    for _ in range(2):
        board.open(board.ticket(group(1), step=1))
    assert [len(jobs) for jobs in iter(board.several, [])] == [1, 1]


def test_jobs_that_cost_a_worker_together_are_done_one_by_one(tmp_path: Path, one: Term) -> None:
    board = paced(one, 0.01, tmp_path, workers=1)
    tickets = [board.ticket(group(1), step=1) for _ in range(3)]
    for ticket in tickets:
        board.open(ticket)
    board.singly(board.several())
    alone = list(iter(board.several, []))
    assert [[job.ticket for job in jobs] for jobs in alone] == [[ticket] for ticket in tickets]
    board.lost(alone[1][0], Outcome("error", detail="died"))
    for jobs in (alone[0], alone[2]):
        board.done(jobs[0], fast(1))
    assert [ticket.outcomes[0]["one"].kind for ticket in tickets] == ["ok", "error", "ok"]
