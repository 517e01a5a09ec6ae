"""``align rm`` as a user sees it, alone and as a stage of a pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Align = Callable[..., Any]


@pytest.fixture
def small(repo_root: Path, tmp_path: Path) -> Path:
    rows = [{"prompt": f"{a} + 1 = ?", "chosen": str(a + 1), "rejected": "No."} for a in range(40)]
    rows.append({"prompt": "a?", "chosen": "b", "rejected": "b"})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    policy = repo_root / "recipes" / "quickstart" / "policy"
    (tmp_path / "small.yaml").write_text(
        f"""
kind: rm
name: small
policy: {{path: {policy}, init: random, dtype: float32}}
cluster: {{device: cpu, threads: 1}}
data: {{path: ./rows.jsonl}}
rm: {{epochs: 1, batch_size: 16, max_length: 64, eval_fraction: 0.3}}
report: {{console: true, tensorboard: false}}
"""
    )
    return tmp_path / "small.yaml"


def test_the_command_trains(align: Align, small: Path):
    result = align("rm", small)
    assert result.exit_code == 0, result.output
    assert "left out of 41 rows: 1 identical" in result.output
    assert "step 2/2" in result.output
    assert "eval/accuracy" in result.output
    assert "done: runs/small" in result.output
    assert Path("runs/small/final/model.safetensors").is_file()
    again = align("rm", small)
    assert again.exit_code == 2
    assert "exists already" in again.output


def test_dry_run_starts_nothing(align: Align, small: Path):
    result = align("rm", small, "--dry-run")
    assert result.exit_code == 0, result.output
    for word in ("eval_fraction: 0.3", "identical", "held out", "parameters", "steps"):
        assert word in result.output
    assert not Path("runs").exists()


def test_dry_run_still_refuses_bad_local_data(align: Align, small: Path):
    result = align("rm", small, "rm.loss=binary", "--dry-run")
    assert result.exit_code == 2
    assert "row train/0: no conversation in the columns prompt, chosen, rejected" in result.output


def test_a_wrong_kind_names_the_right_command(align: Align, small: Path, repo_root: Path):
    assert "align sft" in align("rm", repo_root / "recipes" / "quickstart" / "sft.yaml").output
    assert "align rm" in align("sft", small).output


def test_centring_belongs_to_pairs(align: Align, small: Path):
    result = align("rm", small, "rm.loss=binary", "rm.center=0.5")
    assert result.exit_code == 2
    assert "center belongs to loss: bradley_terry" in result.output


@pytest.mark.parametrize("name", ["helpful", "safety", "reasoning"])
def test_the_papers_recipes_plan_without_a_hub(align: Align, repo_root: Path, name: str):
    result = align("rm", repo_root / "recipes" / f"v2_lite_rm_{name}.yaml", "--dry-run")
    assert result.exit_code == 0, result.output
    assert f"{15_706_484_224 - 102_400 * 2048:,}" in result.output  # no output embedding
    assert "data was not looked at" in result.output
    *_, plan, last = result.output.rstrip().splitlines()
    assert plan.endswith("fits")
    assert last.startswith(
        "warning: the data was not looked at: the model deepseek-ai/DeepSeek-V2-Lite-Chat is"
    )


def test_a_pipeline_trains_a_reward_model_from_its_policy(small: Path, tmp_path: Path, repo_root: Path):
    """The stage is checked with the others and gets the earlier stage's run directory."""
    from align.train.pipeline.stages import load_pipeline

    sft = repo_root / "recipes" / "quickstart" / "sft.yaml"
    (tmp_path / "pipeline.yaml").write_text(
        f"""
kind: pipeline
name: two
run_dir: {tmp_path / "runs"}
stages:
  sft: {{recipe: {sft}}}
  helpful:
    recipe: small.yaml
    set: {{policy.path: "${{sft}}", policy.init: pretrained}}
"""
    )
    _, (policy, reward) = load_pipeline(tmp_path / "pipeline.yaml", ["helpful.rm.epochs=2"])
    assert reward.kind == "rm"
    assert reward.recipe.policy.path == str(policy.directory)
    assert reward.command()[0] == "rm"
    assert "rm.epochs=2" in reward.command()


@pytest.mark.slow
def test_a_pipeline_runs_to_the_end(align: Align, small: Path, tmp_path: Path):
    (tmp_path / "pipeline.yaml").write_text(
        "kind: pipeline\nname: one\nstages:\n  helpful: {recipe: small.yaml}\n"
    )
    result = align("run", tmp_path / "pipeline.yaml")
    assert result.exit_code == 0, result.output
    assert "accuracy" in result.output
    assert Path("runs/one/helpful/final/calibration.json").is_file()
