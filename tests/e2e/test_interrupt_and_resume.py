"""Ctrl-C loses nothing: the resumed run goes on exactly where the uninterrupted one would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as parquet

LAST = 4


def arguments(quickstart: Path, small: dict[str, list[str]], name: str) -> list[str]:
    return [
        "grpo",
        "recipes/quickstart/grpo.yaml",
        f"policy.path={quickstart / 'sft'}",
        f"name={name}",
        *small["grpo"],
        f"grpo.steps={LAST}",
        "grpo.minibatches=2",
    ]


def test_interrupted_and_resumed_equals_uninterrupted(work: Path, run, quickstart: Path, small):
    whole = run(*arguments(quickstart, small, "whole"))
    assert whole.returncode == 0, whole.stderr[-4000:]

    command = [sys.executable, "-m", "align.cli.main", *arguments(quickstart, small, "cut")]
    process = subprocess.Popen(
        command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ.copy()
    )
    metrics = work / "runs" / "cut" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.is_file() and "train/loss" in metrics.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output[-4000:]
    assert "continue with --resume" in output
    latest = (work / "runs" / "cut" / "checkpoints" / "latest").read_text().strip()
    stopped = int(latest.removeprefix("step-"))
    assert 1 <= stopped < LAST

    resumed = run(*arguments(quickstart, small, "cut"), "--resume")
    assert resumed.returncode == 0, resumed.stderr[-4000:]
    for step in range(stopped + 1, LAST + 1):
        tables = [
            parquet.read_table(work / "runs" / name / "rollouts" / f"step-{step:06d}.parquet").to_pylist()
            for name in ("whole", "cut")
        ]
        for column in ("prompt_id", "sample_index", "seed", "weight_version", "completion", "reward"):
            assert [r[column] for r in tables[0]] == [r[column] for r in tables[1]], (step, column)
