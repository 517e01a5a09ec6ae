"""`align eval`: what it checks and shows without an engine, and one whole run with a real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.config.load import load_recipe
from align.config.recipe import EvalRecipe

EVAL = """
kind: eval
name: sums
policy: {path: MODEL, dtype: float32}
eval:
  path: ./rows.jsonl
  max_new_tokens: 4
  parts:
    sums: {metric: exact_answer}
    echo: {metric: ./echo.py, limit: 2}
rollout: {kv_cache_gib: 1, max_num_seqs: 8}
"""


@pytest.fixture
def recipe(work: Path, tiny_model: Path) -> Path:
    rows = [{"prompt": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(5)]
    (work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (work / "echo.py").write_text("def echo(sample):\n    return len(sample.token_ids) / 2\n")
    file = work / "eval.yaml"
    file.write_text(EVAL.replace("MODEL", str(tiny_model)))
    return file


def test_dry_run_shows_parts_and_starts_nothing(align: Callable[..., Any], recipe: Path, work: Path) -> None:
    done = align("eval", "eval.yaml", "--dry-run")
    assert done.exit_code == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert any(row[1:2] == ["sums"] and "exact_answer" in row and "5" in row for row in rows)
    assert any(row[1:2] == ["echo"] and "2" in row for row in rows)
    assert not (work / "runs").exists()


@pytest.mark.parametrize(
    ("override", "key", "reason"),
    [
        ("policy.init=random", "policy.init", "nothing to measure"),
        ("eval.parts={}", "eval.parts", "no held-out parts"),
    ],
)
def test_what_cannot_be_measured(
    align: Callable[..., Any], recipe: Path, override: str, key: str, reason: str
) -> None:
    done = align("eval", "eval.yaml", override)
    assert done.exit_code == 2
    assert f"eval.yaml: {key}: " in done.stderr
    assert reason in done.stderr


def test_nothing_to_compare_with(align: Callable[..., Any], recipe: Path, work: Path) -> None:
    done = align("eval", "eval.yaml", "--compare", "runs/earlier")
    assert done.exit_code == 2
    assert "runs/earlier/predictions.jsonl: no predictions to compare with" in done.stderr
    (work / "runs/earlier").mkdir(parents=True)
    (work / "runs/earlier/predictions.jsonl").write_text("{")
    done = align("eval", "eval.yaml", "--compare", "runs/earlier")
    assert done.exit_code == 2
    assert "damaged predictions" in done.stderr


@pytest.mark.slow
def test_a_whole_evaluation_and_a_comparison(
    align_process: Callable[..., Any], recipe: Path, work: Path
) -> None:
    first = align_process("eval", "eval.yaml", "name=first")
    assert first.returncode == 0, first.stderr
    run = work / "runs" / "first"
    predictions = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert [row["prompt_id"] for row in predictions] == [*(f"sums/{i}" for i in range(5)), "echo/0", "echo/1"]
    (metrics,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    sums = [row["score"] for row in predictions if row["part"] == "sums"]
    assert metrics["eval/sums"] == sum(sums) / 5
    assert all(row["score"] == row["tokens"] / 2 for row in predictions if row["part"] == "echo")
    assert load_recipe(run / "resolved.yaml", kind=EvalRecipe).name == "first"

    second = align_process(
        "eval", "eval.yaml", "name=second", "eval.max_new_tokens=2", "--compare", "runs/first"
    )
    assert second.returncode == 0, second.stderr
    assert "change since runs/first" in second.stdout
    echo = next(line for line in second.stdout.splitlines() if "echo" in line and "-1.000" in line)
    assert "2.000" in echo  # from 4 tokens to 2: scores 2.0 and 1.0
    assert "-1.000" in echo
