"""The failures that a resumed run keeps, with the parts that write and cut their file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.config.run import ReportConfig
from align.report.reporter import Reporter
from align.report.run_directory import RunDirectory
from align.reward.bank.ledger import Ledger
from align.reward.bank.terms import Term
from align.reward.contract import Sample
from align.types import Outcome

TERM = Term("safe", None, model="runs/rm")
QUIET = ReportConfig(console=False, tensorboard=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a run keeps its failures."""
    run = RunDirectory.create(tmp_path / "demo", {"kind": "grpo", "name": "demo"})
    run.close()
    return run.reward_errors


def ledger(file: Path) -> Ledger:
    return Ledger(file, budget=1, window=8)


def fail(book: Ledger, name: str) -> None:
    book.failure(TERM, Sample((), "wörd", prompt_id=name), Outcome("error", detail="no"), weight_version=0)


def saved(book: Ledger) -> Any:
    """The state as a checkpoint gives it back."""
    return json.loads(json.dumps(book.state_dict()))


def names(file: Path) -> list[str]:
    return [json.loads(line)["prompt_id"] for line in file.read_text().splitlines()]


def resumed(file: Path, start: int, state: Any) -> Ledger:
    """What resuming does, in its order: the reporter opens its files, then the rewards get their state."""
    run = RunDirectory.create(file.parent, {"kind": "grpo", "name": "demo"}, resume=True)
    with run, Reporter(run, QUIET, 9, start):
        book = ledger(file)
        if state is not None:
            book.load_state_dict(state)
    return book


def test_steps_done_again_are_recorded_once(file: Path) -> None:
    book = ledger(file)
    fail(book, "step 1")
    fail(book, "step 2")
    state = saved(book)
    fail(book, "step 3")
    with file.open("a") as stream:
        stream.write('{"term": "torn by the cra')
    again = resumed(file, 2, state)
    assert names(file) == ["step 1", "step 2"]
    fail(again, "step 3")
    fail(again, "step 4")
    assert names(file) == ["step 1", "step 2", "step 3", "step 4"]
    assert saved(again)["written"] == file.stat().st_size


def test_a_first_failure_after_the_checkpoint_goes_too(file: Path) -> None:
    book = ledger(file)
    state = saved(book)
    assert state["written"] == 0
    fail(book, "step 1")
    resumed(file, 1, state)
    assert names(file) == []


def test_without_a_checkpoint_all_is_done_again(file: Path) -> None:
    fail(ledger(file), "step 1")
    resumed(file, 0, None)
    assert not file.exists()


def test_a_checkpoint_from_before_loses_no_row(file: Path) -> None:
    book = ledger(file)
    fail(book, "step 1")
    state = saved(book)
    del state["written"]
    fail(book, "step 2")
    resumed(file, 1, state)
    assert names(file) == ["step 1", "step 2"]


def test_a_file_that_someone_removed_stays_away(file: Path) -> None:
    book = ledger(file)
    fail(book, "step 1")
    state = saved(book)
    file.unlink()
    again = resumed(file, 1, state)
    assert not file.exists()
    fail(again, "step 2")
    assert names(file) == ["step 2"]
