from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from align.reward.bank.ledger import BudgetSpent, Ledger, summary
from align.reward.bank.terms import Term
from align.reward.contract import Sample
from align.reward.functions.registry import resolve
from align.reward.functions.rows import read_rows
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
            "reward/a/ok": 2,
            "reward/a/abstain": 0,
            "reward/a/error": 1,
            "reward/a/timeout": 1,
            "reward/a/seconds": 4.0,
            "reward/b/ok": 0,
            "reward/b/abstain": 2,
            "reward/b/error": 0,
            "reward/b/timeout": 0,
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
        book.count(True)
    assert f"align rewards replay {file}" in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.exit_code, str(again)) == (BudgetSpent, 1, str(caught.value))


def test_no_failure_no_file(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "reward_errors.jsonl", budget=0, window=1)
    book.count(False)
    assert list(tmp_path.iterdir()) == []


def test_the_window_and_the_first_failure_survive_a_checkpoint(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "a.jsonl", budget=0.5, window=4)
    book.failure(A, Sample((), "x"), Outcome("error", detail="first\nboom"), weight_version=0)
    for failed in (True, False, True):
        book.count(failed)
    again = Ledger(tmp_path / "b.jsonl", budget=0.5, window=4)
    again.load_state_dict(json.loads(json.dumps(book.state_dict())))
    with pytest.raises(BudgetSpent, match="3 of the last 4 samples") as caught:
        again.count(True)
    assert "first\nboom" in caught.value.message


def test_a_model_failure_is_recorded_without_a_function(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "a.jsonl", budget=0, window=1)
    term = Term("safe", None, model="runs/rm")
    book.failure(term, Sample((), "x"), Outcome("error", detail="too long"), weight_version=0)
    [row] = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert (row["function"], row["model"], row["args"]) == (None, "runs/rm", {})
    with pytest.raises(BudgetSpent, match="model runs/rm, error"):
        book.count(True)
