"""A whole GRPO run on two training ranks and two engines, by the recipe's ``cluster`` section alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

PLACES = {
    "one of each": [],
    "in turns": ["cluster.processes=2", "cluster.expert_parallel=2", "rollout.engines=2"],
    "apart": ["cluster.processes=2", "cluster.placement=disaggregated", "rollout.engines=2"],
}


def steps(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if "train/loss" in record]


@pytest.mark.slow
def test_the_same_run_wherever_it_is(align, repo_root, tmp_path) -> None:
    found = {}
    for name, overrides in PLACES.items():
        run = tmp_path / name.replace(" ", "-")
        result = align(
            "grpo",
            repo_root / "recipes/quickstart/grpo.yaml",
            f"policy.path={repo_root / 'recipes/quickstart/policy'}",
            "policy.init=random",
            "policy.dtype=float32",
            "grpo.steps=2",
            "grpo.prompts_per_step=4",
            "grpo.group_size=4",
            "rollout.max_new_tokens=16",
            "checkpoint.every=1",
            f"run_dir={run}",
            *overrides,
        )
        assert result.exit_code == 0, result.output
        found[name] = steps(run)
        assert (run / "final" / "model.safetensors").is_file()
    alone = found["one of each"]
    for name in PLACES:
        assert [each["sync/version"] for each in found[name]] == [1, 2]
        for key in ("train/loss", "train/grad_norm", "rewards/mean"):
            if key in alone[0]:
                assert found[name][0][key] == pytest.approx(alone[0][key], rel=1e-3, abs=1e-5), (name, key)
