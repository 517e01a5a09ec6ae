from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from align.reward.contract import Sample
from align.reward.ledger import BudgetSpent, Ledger, summary
from align.reward.registry import resolve
from align.reward.rows import read_rows
from align.reward.terms import Term
from align.types import Outcome, SampleScore

A, B = (Term(name, resolve("exact_answer", {"extract": "boxed"})) for name in "ab")


def score(index: int, reward: float | None, **terms: Outcome) -> SampleScore:
    return SampleScore("p", index, reward, terms)


def test_summary_by_hand() -> None:
    scores = [
        score(0, 1.0, a=Outcome("ok", 1.0, seconds=0.5), b=Outcome("abstain", seconds=0.1)),
        score(1, 3.0, a=Outcome("ok", 3.0, seconds=0.5), b=Outcome("abstain")),
        score(2, None, a=Outcome("error", seconds=1.0)),
        score(3, None, a=Outcome("timeout", seconds=2.0)),
    ]
    assert summary([A, B], scores) == pytest.approx(
        {
            "reward/mean": 2.0,
            "reward/std": 1.0,
            "reward/left_out_share": 0.5,
            "reward/a/mean": 2.0,
            "reward/a/std": 1.0,
            "reward/a/abstain_share": 0.0,
            "reward/a/error_share": 0.25,
            "reward/a/timeout_share": 0.25,
            "reward/a/seconds": 4.0,
            "reward/b/abstain_share": 1.0,
            "reward/b/error_share": 0.0,
            "reward/b/timeout_share": 0.0,
            "reward/b/seconds": 0.1,
        }
    )
    assert summary([A], []) == {"reward/left_out_share": 0.0}


def test_a_recorded_failure_reads_back_as_the_same_sample(tmp_path: Path) -> None:
    sample = Sample(
        prompt=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}),
        completion="vier — 4",
        token_ids=[3, 1, 4],
        finish_reason="length",
        max_new_tokens=3,
        columns={"answer": "4", "part": "x", "tags": ["a"]},
        part="sums",
        prompt_id="sums/7",
        sample_index=2,
    )
    file = tmp_path / "runs" / "x" / "reward_errors.jsonl"
    book = Ledger(file, budget=0, window=1)
    for _ in range(2):
        book.failure(A, sample, Outcome("error", detail="boom"), weight_version=3)
    assert read_rows(file, {}, limit=8, max_new_tokens=256) == [sample, sample]
    with pytest.raises(BudgetSpent) as caught:
        book.count(score(0, None, a=Outcome("error", detail="boom")))
    assert f"exact_answer --data {file}" in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.exit_code, str(again)) == (BudgetSpent, 1, str(caught.value))


def test_no_failure_no_file(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "reward_errors.jsonl", budget=0, window=1)
    book.count(score(0, 1.0, a=Outcome("ok", 1.0)))
    assert list(tmp_path.iterdir()) == []
