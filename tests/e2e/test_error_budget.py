"""A reward that breaks during a run stops it, with the first traceback and a checkpoint to go on from."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

JUDGE = """
from pathlib import Path

from align.reward import Sample, reward

@reward
def judge(sample: Sample) -> float:
    if Path({broken_by!r}).exists():
        raise ValueError("the judge has gone home")
    return float(len(sample.completion) % 2)
"""


@pytest.mark.slow
def test_a_spent_error_budget_leaves_a_checkpoint(work: Path, run, quickstart: Path, small):
    home = work / "runs" / "judged"
    judge = work / "judge.py"
    judge.write_text(JUDGE.format(broken_by=str(home / "rollouts" / "step-000001.parquet")))
    arguments = [
        "grpo",
        "recipes/quickstart/grpo.yaml",
        f"policy.path={quickstart / 'sft'}",
        "name=judged",
        *small["grpo"],
        "rewards.terms.judge.function=judge.py",
        "rewards.error_window=64",  # of which 5% are 3 samples; the recipe saves every 20 steps
    ]
    stopped = run(*arguments)
    assert stopped.returncode == 1, stopped.stdout[-4000:] + stopped.stderr[-4000:]
    assert "more than the error budget of 5% of 64" in stopped.stderr
    assert "judge.py" in stopped.stderr
    assert "ValueError: the judge has gone home" in stopped.stderr
    assert "align rewards replay runs/judged/reward_errors.jsonl" in stopped.stderr
    assert "saved step 1; continue with --resume" in stopped.stdout
    log = (home / "run.log").read_text()
    assert 'raise ValueError("the judge has gone home")' in log, "the whole traceback"

    latest = home / "checkpoints" / "latest"
    assert latest.read_text().strip() == "step-000001"
    failures = [json.loads(line) for line in (home / "reward_errors.jsonl").read_text().splitlines()]
    assert {(each["term"], each["kind"], each["weight_version"]) for each in failures} == {
        ("judge", "error", 1)
    }

    judge.write_text(JUDGE.format(broken_by="/nothing/of/that/name"))
    resumed = run(*arguments, "--resume")
    assert resumed.returncode == 0, resumed.stdout[-4000:] + resumed.stderr[-4000:]
    assert latest.read_text().strip() == "step-000002"
    records = [json.loads(line) for line in (home / "metrics.jsonl").read_text().splitlines()]
    trained = [record for record in records if "train/loss" in record]
    assert [record["step"] for record in trained] == [1, 2]
    assert trained[1]["reward/judge/ok"] == 16
    rows = parquet.read_table(home / "rollouts" / "step-000002.parquet").to_pylist()
    assert {row["weight_version"] for row in rows} == {1}, "sampled with the weights of step 1"
    assert all(row["reward"] is not None for row in rows)
