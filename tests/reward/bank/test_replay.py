"""Failures written by the ledger, repeated in fresh processes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from align.cli.main import app
from align.errors import RewardError
from align.reward.bank.ledger import Ledger
from align.reward.bank.replay import read_failure, replay, reproduced
from align.reward.bank.terms import Term
from align.reward.calls.limits import DIED, call_seed, late
from align.reward.calls.score import call
from align.reward.contract import Sample
from align.reward.functions.registry import resolve
from align.types import Outcome

Write = Callable[[str, str], str]
Record = Callable[..., Path]

BAD = """
import os, random
def bad(sample, kind='raise'):
    if kind == 'raise': raise ValueError(f'not {sample.completion}')
    if kind == 'roll': raise ValueError(f'rolled {random.random()}')
    if kind == 'hang':
        while True: pass
    if kind == 'die': os._exit(7)
    if kind == 'eat': bytearray(2**30)
    return float('nan')
"""


@pytest.fixture
def record(write: Write, tmp_path: Path) -> Record:
    """Write one failure of ``bad(kind)``, or of another file; returns the dump."""
    file = tmp_path / "run" / "reward_errors.jsonl"
    ledger = Ledger(file, budget=1.0, window=8, seed=11)

    def record(
        sample: Sample, outcome: Outcome, kind: str = "raise", source: str = BAD, **extra: Any
    ) -> Path:
        function = resolve(write("bad.py", source), {"kind": kind} if source is BAD else {})
        ledger.failure(
            Term("t", function, timeout=1.0, memory_mib=256), sample, outcome, weight_version=5, **extra
        )
        return file

    return record


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("raise", Outcome("error", detail="Traceback\nValueError: not 4")),
        ("hang", late(1.0)),
        ("die", Outcome("error", detail=f"{DIED}: Worker exit type: SYSTEM_ERROR")),
        ("eat", Outcome("error", detail="Traceback\nMemoryError (limit 256 MiB)")),
        ("nan", Outcome("error", detail="returned nan; return None to abstain")),
    ],
)
def test_every_kind_of_failure_is_reproduced(
    record: Record, samples: list[Sample], kind: str, outcome: Outcome
) -> None:
    failure = read_failure(record(samples[0], outcome, kind), 1)
    assert (failure.sample, failure.recorded.kind) == (samples[0], outcome.kind)
    now = replay(failure)
    assert now.kind == outcome.kind
    assert reproduced(failure.recorded, now), now.detail


def test_random_failures_come_back_with_the_seed_of_the_run(record: Record, samples: list[Sample]) -> None:
    random.seed(call_seed(11, "t", 5, samples[1]))
    outcome = Outcome("error", detail=f"ValueError: rolled {random.random()}")
    failure = read_failure(record(samples[1], outcome, "roll"), 1)
    assert reproduced(failure.recorded, replay(failure))


def test_a_list_is_called_as_a_whole_again(record: Record, samples: list[Sample]) -> None:
    source = "def bad(samples): return [float('nan') for _ in samples]\n"
    length = "def bad(samples): return [1.0] * min(len(samples), 2)\n"
    outcome = Outcome("error", detail="returned 2 scores for 3 samples")
    file = record(samples[2], outcome, source=length, together=samples)
    failure = read_failure(file, 1)
    assert failure.together == tuple(samples)
    assert reproduced(failure.recorded, replay(failure))
    file = record(samples[2], Outcome("error", detail="returned nan; return None to abstain"), source=source)
    assert reproduced(read_failure(file, 2).recorded, replay(read_failure(file, -1)))


def test_another_failure_is_no_reproduction() -> None:
    boom = Outcome("error", detail="Traceback\nValueError: at 0x7f12")
    assert reproduced(boom, Outcome("error", detail="Traceback, other lines\nValueError: at 0x99"))
    assert not reproduced(boom, Outcome("error", detail="Traceback\nKeyError: 3"))
    assert not reproduced(boom, late(1.0))
    assert not reproduced(boom, Outcome("ok", 1.0))
    assert reproduced(late(1.0), late(1.0))


def align(*args: str) -> Result:
    return CliRunner().invoke(app, ["rewards", "replay", *args])


def test_command_tells_reproduced_from_mended(record: Record, write: Write, samples: list[Sample]) -> None:
    function = resolve(write("bad.py", BAD))
    [outcome] = call(function, samples[:1])
    file = str(record(samples[0], outcome))
    result = align(file)
    assert (result.exit_code, result.stdout.count("ValueError: not 4")) == (0, 2), result.output
    assert "sample 0 of sums/7, weights 5, limits 1 s and 256 MiB" in result.stdout
    assert result.stdout.endswith("reproduced\n")
    write("bad.py", "def bad(sample, kind): return 0.5\n")
    result = align(file, "--row", "-1")
    assert result.exit_code == 1
    assert "now: ok 0.5" in result.stdout
    assert result.stdout.endswith("it differs now\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.jsonl"], "no such file"),
        (["FILE", "--row", "0"], "there is no row 0"),
        (["FILE", "--row", "4"], "there is no row 4: the file has 3"),
        (["FILE", "--row", "1"], "is not a recorded failure: KeyError"),
        (["FILE", "--row", "2"], "is of the reward model runs/rm"),
        (["FILE", "--row", "3"], "no such reward file"),
    ],
)
def test_bad_input_is_one_clear_error(
    write: Write, tmp_path: Path, samples: list[Sample], args: list[str], message: str
) -> None:
    file = tmp_path / "reward_errors.jsonl"
    file.write_text(json.dumps({"completion": "x"}) + "\n")
    ledger = Ledger(file, budget=1.0, window=8)
    gone = Path(write("gone.py", BAD))
    for term in (Term("m", None, model="runs/rm"), Term("g", resolve(str(gone)))):
        ledger.failure(term, samples[0], late(1.0), weight_version=0)
    gone.unlink()
    result = align(*[str(file) if arg == "FILE" else arg for arg in args])
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output


def test_an_unimportable_function_is_told_from_a_failing_one(
    record: Record, write: Write, samples: list[Sample]
) -> None:
    failure = read_failure(record(samples[0], late(1.0)), 1)
    write("bad.py", "import nothing_of_this_name\n")
    with pytest.raises(RewardError, match="cannot be imported"):
        replay(failure)


def test_texts_and_steps_of_a_call_are_repeated(write: Write, tmp_path: Path) -> None:
    source = """
        def f(completions, trainer_state, **kw):
            raise ValueError(f"{completions} at {trainer_state.global_step} of {trainer_state.max_steps}")
    """
    file = tmp_path / "reward_errors.jsonl"
    sample = Sample(({"role": "user", "content": "a?"},), "b", prompt_from_text=True)
    term = Term("t", resolve(write("f.py", source)), max_steps=9)
    told = "ValueError: ['b'] at 5 of 9"
    Ledger(file, budget=1.0, window=8, seed=11).failure(
        term, sample, Outcome("error", detail=told), weight_version=5
    )
    failure = read_failure(file, 1)
    assert failure.sample.prompt_from_text
    assert replay(failure).detail.endswith(told)


def test_rows_of_earlier_versions_are_read(record: Record, samples: list[Sample]) -> None:
    file = record(samples[0], Outcome("error", detail="ValueError: not 4"))
    row = json.loads(file.read_text())
    del row["max_steps"], row["prompt_from_text"]
    file.write_text(json.dumps(row) + "\n")
    failure = read_failure(file, 1)
    assert (failure.max_steps, failure.sample) == (1, samples[0])
