"""What ``align grpo`` and ``align eval`` check before an engine starts survives any function."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from align.config.recipe import GrpoRecipe
from align.errors import RewardError
from align.train.grpo.prepared import prepare

POLICY = Path(__file__).parents[3] / "recipes" / "quickstart" / "policy"
BAD = """
import os
from align.reward import reward

@reward
def fine(sample): return 1.0

@reward(timeout=1)
def bad(sample, how):
    if how == "hang":
        while True: pass
    if how == "exit": os._exit(0)
    return float(len(bytearray(2**32)))
"""
FAULTS = [
    ("hang", "no answer within 1 s"),
    ("exit", "the call ended its process: exit code 0"),
    pytest.param(
        "memory",
        r"MemoryError \(limit 2048 MiB\)",
        marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits private data"),
    ),
]


@pytest.fixture
def recipe(tmp_path: Path) -> Any:
    """``recipe(term=…, metric=…)``: functions of the file above, with their arguments."""
    data, functions = tmp_path / "rows.jsonl", tmp_path / "bad.py"
    data.write_text(json.dumps({"prompt": "1 + 1 = ?", "answer": "2"}) + "\n")
    functions.write_text(BAD)

    def build(term: dict[str, Any] | None = None, metric: dict[str, Any] | None = None) -> GrpoRecipe:
        fine = {"name": f"{functions}:fine"}
        bad = {"name": f"{functions}:bad"}
        reward = {"function": fine["name"]} if term is None else {"function": bad["name"], "args": term}
        part = {"metric": fine["name"]} if metric is None else {"metric": bad["name"], "args": metric}
        return GrpoRecipe.model_validate(
            {
                "kind": "grpo",
                "name": "start",
                "policy": {"path": str(POLICY), "init": "random"},
                "data": {"parts": {"sums": {"path": str(data)}}},
                "grpo": {"prompts_per_step": 1},
                "rewards": {"terms": {"first": {"function": fine["name"]}, "mine": reward}},
                "eval": {"parts": {"held": {"path": str(data), **part}}},
            }
        )

    return build


@pytest.mark.parametrize(("how", "message"), FAULTS)
def test_a_bad_reward_function_is_one_clear_error(recipe: Any, how: str, message: str) -> None:
    with pytest.raises(RewardError, match=message) as caught:
        prepare(recipe(term={"how": how}), file=Path("recipe.yaml"))
    assert (caught.value.file, caught.value.key) == ("recipe.yaml", "rewards.terms.mine")
    assert "on row sums/0" in caught.value.message
    assert "bad.py:bad" in (caught.value.remedy or "")


@pytest.mark.parametrize(("how", "message"), FAULTS)
def test_a_bad_metric_is_one_clear_error(recipe: Any, how: str, message: str) -> None:
    with pytest.raises(RewardError, match=message) as caught:
        prepare(recipe(metric={"how": how}), file=Path("recipe.yaml"))
    assert (caught.value.file, caught.value.key) == ("recipe.yaml", "eval.parts.held.metric")


def test_what_works_passes(recipe: Any) -> None:
    assert list(prepare(recipe(), file=Path("recipe.yaml")).eval_prompts) == ["held"]
