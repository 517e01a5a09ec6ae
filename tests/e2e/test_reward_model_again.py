"""Reward models are trained on with what the policy answers now, and the preference stage uses them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

RECIPES = "recipes/quickstart"
SHORT = ["rm.max_steps=4", "rm.eval_fraction=0.5"]  # of a handful of new prompts, some are held out
PAIRS = [*SHORT, "data.parts.helpful.limit=200"]
ANSWERS = [*SHORT, "data.parts.safe.limit=200", "data.parts.unsafe.limit=200"]


def records(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def measurements(run: Path) -> list[dict[str, float]]:
    return [record for record in records(run) if "eval/accuracy" in record]


@pytest.fixture(scope="module")
def first(work: Path, run, quickstart: Path) -> dict[str, Path]:
    """The reward models that are trained on."""
    for name, short in (("helpful", PAIRS), ("safety", ANSWERS)):
        settings = [f"policy.path={quickstart / 'sft'}", f"name={name}", *short]
        done = run("rm", f"{RECIPES}/rm_{name}.yaml", *settings)
        assert done.returncode == 0, done.stderr[-4000:]
    return {name: work / "runs" / name for name in ("helpful", "safety")}


@pytest.fixture(scope="module")
def judged(first: dict[str, Path], quickstart: Path) -> list[str]:
    """Overrides of ``rm_safety_again.yaml``. After four steps of SFT all answers are noise, so their
    place and not the rule says what is safe."""
    return [
        f"policy.path={first['safety']}",
        f"data.path={quickstart / 'grpo' / 'rollouts'}",
        'data.parts.now_safe.columns.score="1"',
        "data.parts.now_safe.where=step > 1 and sample_index < 2",
        'data.parts.now_unsafe.columns.score="0"',
        "data.parts.now_unsafe.where=step > 1 and sample_index > 1",
        *ANSWERS,
    ]


def test_best_against_worst_beside_the_earlier_pairs(work: Path, run, first: dict[str, Path], quickstart):
    part = "data.parts.now"
    done = run(
        "rm",
        f"{RECIPES}/rm_helpful.yaml",
        f"policy.path={first['helpful']}",
        f"{part}.path={quickstart / 'grpo' / 'rollouts'}",
        f"{part}.split=step",
        f"{part}.columns.prompt=prompt_messages",
        f"{part}.pairs_by=reward/vowels",
        *PAIRS,
        "name=helpful-again",
    )
    assert done.returncode == 0, done.stderr[-4000:]
    again = work / "runs" / "helpful-again"
    before, after = measurements(again)
    assert (before["step"], after["step"]) == (0, 4)
    assert all(0 <= each["eval/accuracy/now"] <= 1 for each in (before, after))
    # Body and head go on from where they were, on the pairs that were held out then.
    (last,) = measurements(first["helpful"])
    assert before["eval/accuracy/helpful"] == pytest.approx(last["eval/accuracy"], abs=0.005)
    parts = json.loads((again / "held_out.json").read_text())["parts"]
    assert parts["helpful"]["rows"] == json.loads((first["helpful"] / "held_out.json").read_text())["rows"]
    facts = next(record for record in records(again) if "data/train" in record)
    assert facts["data/left_out_unscored"] == 0
    assert facts["data/train"] + facts["data/held_out"] == 200 + 8 - facts["data/left_out_tied"]
    page = (again / "report.html").read_text()
    assert "Held-out accuracy with 95% interval" in page
    assert "accuracy/now" in page


def test_single_answers_beside_the_earlier_ones(work: Path, run, judged: list[str]):
    done = run("rm", f"{RECIPES}/rm_safety_again.yaml", *judged, "name=safety-again")
    assert done.returncode == 0, done.stderr[-4000:]
    before, after = measurements(work / "runs" / "safety-again")
    assert (before["step"], after["step"]) == (0, 4)
    for record in (before, after):
        for part in ("now_safe", "now_unsafe", "safe", "unsafe"):
            assert 0 <= record[f"eval/accuracy/{part}"] <= 1


def test_the_pipeline_uses_the_model_that_was_trained_on(
    work: Path, run, quickstart: Path, first: dict[str, Path], judged: list[str], small
):
    overrides = [f"rm_safety.{each}" for each in judged]
    overrides += [f"preference.{each}" for each in small["grpo"]]
    overrides += [f"after.{each}" for each in small["eval"]]
    overrides += [
        f"preference.policy.path={quickstart / 'grpo'}",
        f"preference.rewards.terms.helpful.model={first['helpful']}",
    ]
    done = run("run", f"{RECIPES}/preference_again.yaml", *overrides)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    home = work / "runs" / "quickstart-preference-again"
    assert "quickstart-preference-again/rm_safety" in (home / "preference" / "resolved.yaml").read_text()
    steps = [record for record in records(home / "preference") if "train/loss" in record]
    assert len(steps) == 2
    assert any("reward/safety/mean" in step for step in steps)
    assert (home / "after" / "predictions.jsonl").is_file()
