"""One step ahead on real engines: completions are one update old, and training corrects for it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

STEPS = 3


@pytest.mark.slow
def test_a_run_one_step_ahead(work: Path, run, quickstart: Path, small):
    arguments = [
        "grpo",
        "recipes/quickstart/grpo.yaml",
        f"policy.path={quickstart / 'sft'}",
        "name=ahead",
        *small["grpo"],
        f"grpo.steps={STEPS}",
        "grpo.schedule=async",
    ]
    refused = run(*arguments, "cluster.residency=scheduled")
    assert refused.returncode == 2
    assert "cluster.residency" in refused.stderr

    done = run(*arguments)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    home = work / "runs" / "ahead"
    records = [json.loads(line) for line in (home / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if "train/loss" in record]
    assert [record["step"] for record in steps] == [1, 2, 3]
    # Step 1 is sampled by the first weights and nothing is older; from step 2 on, one update lies between.
    assert [record["rollout/staleness"] for record in steps] == [0, 1, 1]
    for step in range(1, STEPS + 1):
        table = parquet.read_table(home / "rollouts" / f"step-{step:06d}.parquet").to_pylist()
        assert {row["weight_version"] for row in table} == {max(0, step - 2)}
        assert len(table) == 16
    assert all(record["sync/probe_mean"] < 0.02 for record in steps)
    assert ["time/ahead_rollout" in record for record in steps] == [True, True, False]
    peaks = [record["memory/step_gib"] for record in steps]
    assert min(peaks) > 0.5
    assert max(peaks) - min(peaks) < 0.4  # starting fills a KV cache of 1 GiB, and is not in the first
    assert (home / "final" / "config.json").is_file()
