"""`align run` from the command line: real stages in processes of their own, as far as they get."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PIPELINE = """
kind: pipeline
name: chain
stages:
  first:
    recipe: eval.yaml
  second:
    recipe: eval.yaml
    set: {policy.path: "${first}/final"}
"""
EVAL = """
kind: eval
name: one
policy: {path: ./model}
eval: {parts: {sums: {path: ./rows.jsonl, metric: exact_answer}}}
"""


@pytest.fixture
def chain(work: Path) -> Path:
    """A pipeline whose first stage fails: its model directory is empty."""
    (work / "model").mkdir()
    for name, text in {
        "pipeline.yaml": PIPELINE,
        "eval.yaml": EVAL,
        "rows.jsonl": '{"prompt": "1+1", "answer": "2"}\n',
    }.items():
        (work / name).write_text(text)
    return work


def test_dry_run_shows_the_commands_and_starts_nothing(align: Callable[..., Any], chain: Path) -> None:
    done = align("run", "pipeline.yaml", "second.eval.temperature=0.5", "--dry-run")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "first: align eval eval.yaml seed=0 run_dir=runs/chain/first",
        "second: align eval eval.yaml seed=0 policy.path=runs/chain/first/final eval.temperature=0.5"
        " run_dir=runs/chain/second",
    ]
    assert not (chain / "runs").exists()


def test_a_fault_in_a_later_stage_stops_the_first(align: Callable[..., Any], chain: Path) -> None:
    done = align("run", "pipeline.yaml", "second.eval.temprature=0.5")
    assert done.exit_code == 2
    assert "pipeline.yaml: stages.second.set.eval.temprature: eval.temprature: unknown key" in done.stderr
    assert "did you mean 'temperature'?" in done.stderr
    assert not (chain / "runs").exists()


def test_a_stage_that_fails_speaks_for_itself(align_process: Callable[..., Any], chain: Path) -> None:
    done = align_process("run", "pipeline.yaml")
    assert done.returncode == 2
    assert "stage 1/2 first (eval): started" in done.stdout
    own, pipeline = (
        done.stderr.index("no config.json in this directory"),
        done.stderr.index("stage 'first' failed"),
    )
    assert own < pipeline
    assert "--resume" in done.stderr
    assert "Traceback" not in done.stderr
    state = json.loads((chain / "runs/chain/pipeline.json").read_text())["stages"]
    assert {name: entry["state"] for name, entry in state.items()} == {"first": "running"}


def test_the_summary_shows_wall_times_and_results(align: Callable[..., Any], chain: Path) -> None:
    """Both stages finished earlier; what they left behind is shown."""
    from align.train.pipeline.run import State
    from align.train.pipeline.stages import load_pipeline

    pipeline, stages = load_pipeline("pipeline.yaml")
    state = State(pipeline.directory)
    for stage, accuracy in zip(stages, (0.25, 0.5), strict=True):
        stage.directory.mkdir(parents=True)
        line = {"step": 0, "eval/sums": accuracy, "eval/sums/stderr": 0.01}
        (stage.directory / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        state.record(stage, "finished", 65.0)
    done = align("run", "pipeline.yaml", "--resume")
    assert done.exit_code == 0, done.stderr
    cells = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line
    ]
    assert ["first", "eval", "1:05", "runs/chain/first"] in cells
    assert ["all", "", "2:10", ""] in cells
    assert ["sums", "0.250", "0.500", "+0.250"] in cells
    assert "stderr" not in done.stdout
