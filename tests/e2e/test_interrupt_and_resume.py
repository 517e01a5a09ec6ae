"""Ctrl-C loses nothing: the resumed run goes on exactly where the uninterrupted one would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

LAST = 4
"""Steps, as the pipeline's own GRPO stage has."""


def arguments(quickstart: Path, small: dict[str, list[str]], name: str, *more: str) -> list[str]:
    return [
        "grpo",
        "recipes/quickstart/grpo.yaml",
        f"policy.path={quickstart / 'sft'}",
        f"name={name}",
        *small["grpo"],
        f"grpo.steps={LAST}",
        *more,
    ]


def test_interrupted_and_resumed_equals_uninterrupted(work: Path, run, quickstart: Path, small):
    stopped = interrupt_and_resume(work, run, arguments(quickstart, small, "cut"))
    compare(quickstart / "grpo", work / "runs" / "cut", stopped)


@pytest.mark.slow
def test_so_it_is_with_several_updates_a_step(work: Path, run, quickstart: Path, small):
    whole = run(*arguments(quickstart, small, "whole", "grpo.minibatches=2"))
    assert whole.returncode == 0, whole.stderr[-4000:]
    stopped = interrupt_and_resume(work, run, arguments(quickstart, small, "several", "grpo.minibatches=2"))
    compare(work / "runs" / "whole", work / "runs" / "several", stopped)


def interrupt_and_resume(work: Path, run, command: list[str]) -> int:
    """Press Ctrl-C after the first step and go on; the step at which it stopped."""
    name = next(each.removeprefix("name=") for each in command if each.startswith("name="))
    process = subprocess.Popen(
        [sys.executable, "-m", "align.cli.main", *command],
        cwd=work,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ.copy(),
    )
    metrics = work / "runs" / name / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.is_file() and "train/loss" in metrics.read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output[-4000:]
    assert "continue with --resume" in output
    latest = (work / "runs" / name / "checkpoints" / "latest").read_text().strip()
    stopped = int(latest.removeprefix("step-"))
    assert 1 <= stopped < LAST
    resumed = run(*command, "--resume")
    assert resumed.returncode == 0, resumed.stderr[-4000:]
    return stopped


def compare(whole: Path, cut: Path, stopped: int) -> None:
    for step in range(stopped + 1, LAST + 1):
        tables = [
            parquet.read_table(folder / "rollouts" / f"step-{step:06d}.parquet").to_pylist()
            for folder in (whole, cut)
        ]
        for column in ("prompt_id", "sample_index", "seed", "weight_version", "completion", "reward"):
            assert [r[column] for r in tables[0]] == [r[column] for r in tables[1]], (step, column)
