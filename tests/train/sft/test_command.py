"""``align sft`` and ``align plan`` as a user sees them, and the paper's recipe."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.config.load import load_recipe
from align.config.recipe import SftRecipe
from align.dataset.rows.mixture import shares
from align.dataset.rows.parts import load_parts
from align.train.sft.trainer import PolicyTrainer

Align = Callable[..., Any]


@pytest.fixture
def recipe(repo_root: Path) -> Path:
    return repo_root / "recipes" / "v2_lite_chat.yaml"


@pytest.fixture
def small(repo_root: Path, tmp_path: Path) -> Path:
    rows = [{"prompt": f"{a} + 1 = ?", "completion": str(a + 1)} for a in range(24)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    policy = repo_root / "recipes" / "quickstart" / "policy"
    (tmp_path / "small.yaml").write_text(
        f"""
kind: sft
name: small
policy: {{path: {policy}, init: random, dtype: float32}}
cluster: {{device: cpu, threads: 1}}
data: {{path: ./rows.jsonl}}
sft: {{epochs: 1, batch_size: 8, max_length: 64}}
report: {{console: true, tensorboard: false}}
"""
    )
    return tmp_path / "small.yaml"


def test_the_command_trains(align: Align, small: Path):
    result = align("sft", small)
    assert result.exit_code == 0, result.output
    assert "step 3/3" in result.output
    assert "done: runs/small" in result.output
    assert Path("runs/small/final/model.safetensors").is_file()


def test_ctrl_c_ends_with_130_and_a_checkpoint(align: Align, small: Path, monkeypatch: pytest.MonkeyPatch):
    log = PolicyTrainer.log

    def press(self: PolicyTrainer, logs: dict[str, float], start_time: float | None = None) -> None:
        log(self, logs, start_time)
        if self.state.global_step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(PolicyTrainer, "log", press)
        result = align("sft", small)
    assert result.exit_code == 130
    assert "continue with --resume" in result.output
    assert Path("runs/small/checkpoints/latest").read_text().strip() == "step-000002"
    resumed = align("sft", small, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert Path("runs/small/final/config.json").is_file()


def test_dry_run_starts_nothing(align: Align, small: Path):
    result = align("sft", small, "sft.packing=true", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "packing: true" in result.output
    assert "rows an epoch" in result.output
    assert "parameters" in result.output
    assert "steps" in result.output
    assert not Path("runs").exists()


def test_dry_run_still_refuses_bad_local_data(align: Align, small: Path):
    result = align("sft", small, "data.path=./missing.jsonl", "--dry-run")
    assert result.exit_code == 2
    assert "no such file" in result.output


def test_dry_run_with_data_on_the_hub(align: Align, small: Path):
    result = align("sft", small, "data.path=openai/gsm8k", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "data was not looked at" in result.output


def test_the_papers_recipe(recipe: Path):
    loaded = load_recipe(recipe, kind=SftRecipe)
    assert loaded.sft.epochs == 2
    assert loaded.optim.lr == 5e-6
    assert loaded.sft.balance_alpha == 0.001
    assert loaded.cluster.processes == 8
    parts = loaded.data.parts
    weights = {name: part.weight for name, part in parts.items()}
    share = shares(dict.fromkeys(weights, 1), weights)
    assert share["refusals"] + share["answers"] == pytest.approx(0.2)
    tokens = loaded.sft.batch_size * loaded.sft.gradient_accumulation * 8 * loaded.sft.max_length
    assert tokens == 2**20


def test_the_papers_recipe_plans_without_a_hub(align: Align, recipe: Path):
    result = align("sft", recipe, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "15,706,484,224" in result.output
    assert "data was not looked at" in result.output
    *_, plan, last = result.output.rstrip().splitlines()
    assert plan.endswith("fits")
    assert last.startswith(
        "warning: the data was not looked at: the model deepseek-ai/DeepSeek-V2-Lite is on"
    )


def test_the_papers_recipe_without_a_hub_is_one_error(align: Align, recipe: Path):
    result = align("sft", recipe)
    assert result.exit_code == 2
    assert result.output.count("error:") == 1
    assert "deepseek-ai/DeepSeek-V2-Lite" in result.output
    assert "remedy:" in result.output
    assert not Path("runs").exists()


def test_the_papers_recipe_sorts_rows_as_it_says(recipe: Path, tmp_path: Path):
    def turns(answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]

    tulu = [
        {"source": "ai2-adapt-dev/tulu_v3.9_wildchat_100k", "messages": turns("plain")},
        {"source": "ai2-adapt-dev/tulu_v3.9_wildjailbreak_decontaminated_50k", "messages": turns("refusal")},
        {"source": "ai2-adapt-dev/coconot_converted", "messages": turns("refusal")},
        {"source": "ai2-adapt-dev/flan_v2_converted", "messages": turns(" ")},
    ]
    beaver = [
        {"prompt": "q", "response": "safe", "is_safe": True, "category": {}},
        {"prompt": "q", "response": "unsafe", "is_safe": False, "category": {}},
        {"prompt": "q", "response": "", "is_safe": True, "category": {}},
    ]
    for name, rows in {"tulu": tulu, "beaver": beaver, "chat": [{"messages": turns("chat")}]}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"instruct": "tulu", "refusals": "tulu", "chat": "chat", "answers": "beaver"}
    overrides = [f"data.parts.{part}.path={tmp_path}/{name}.jsonl" for part, name in files.items()]
    loaded = load_recipe(recipe, overrides, kind=SftRecipe)
    kept = {part.name: [row.id for row in part.rows] for part in load_parts(loaded.data)}
    assert kept["instruct"] == ["instruct/0"]
    assert kept["refusals"] == ["refusals/1", "refusals/2"]
    assert kept["answers"] == ["answers/0"]


def test_plan_command(align: Align, recipe: Path, small: Path):
    result = align("plan", recipe, "policy.path=deepseek-ai/DeepSeek-V2", "cluster.processes=64")
    assert result.exit_code == 0, result.output
    assert "235,741,434,880" in result.output
    unfit = align("plan", recipe, "cluster.processes=1")
    assert "does not fit" in unfit.output
    assert "raise cluster.processes" in unfit.output
    assert align("plan", small).exit_code == 0


def test_plan_of_an_unknown_model(align: Align, recipe: Path):
    result = align("plan", recipe, "policy.path=nobody/nothing")
    assert result.exit_code == 2
    assert "policy.path" in result.output
