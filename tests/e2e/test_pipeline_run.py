"""SFT → GRPO on real TRL, Ray and vLLM: what a run leaves behind is whole and loads elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as parquet
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_run_directory_is_whole(quickstart: Path):
    for stage in ("sft", "grpo"):
        run = quickstart / stage
        for name in ("resolved.yaml", "environment.json", "run.log", "report.html", "final/config.json"):
            assert (run / name).is_file(), f"{stage}/{name}"
        assert list((run / "tensorboard").rglob("events.*"))
        assert (run / "checkpoints" / "latest").is_file()


def test_grpo_reports_what_it_did(quickstart: Path):
    steps = [record for record in records(quickstart / "grpo") if "train/loss" in record]
    assert [record["step"] for record in steps] == [1, 2, 3, 4]
    first = steps[0]
    # Trainer and engine compute the same model: sampled and trained log-probabilities agree.
    assert 0 <= first["mismatch/logprob_mean"] < 0.02
    assert first["mismatch/logprob_max"] < 0.5
    assert 0 <= first["sync/probe_mean"] < 0.02
    assert first["train/kl"] == 0  # the policy is still the reference
    assert steps[1]["train/kl"] > 0
    assert {"reward/correct/mean", "time/rollout", "time/update", "time/sync"} <= first.keys()


def test_every_completion_and_every_term_is_written_down(quickstart: Path):
    for step in (1, 2, 3, 4):
        table = parquet.read_table(quickstart / "grpo" / "rollouts" / f"step-{step:06d}.parquet").to_pylist()
        assert len(table) == 16
        assert len({row["seed"] for row in table}) == 16
        assert {row["weight_version"] for row in table} == {step - 1}
        by_prompt: dict[str, list[float]] = {}
        for row in table:
            if row["advantage"] is not None:
                by_prompt.setdefault(row["prompt_id"], []).append(row["advantage"])
        for advantages in by_prompt.values():
            assert abs(sum(advantages)) < 1e-6


def test_both_evaluations_are_there(quickstart: Path):
    for stage in ("before", "after"):
        (record,) = [each for each in records(quickstart / stage) if "eval/maths" in each]
        assert 0 <= record["eval/maths"] <= 1
        assert 0 <= record["eval/code"] <= 1
        assert 0 <= record["eval/over_refusal"] <= 1


def test_the_final_model_loads_in_transformers_with_other_weights_than_before(quickstart: Path):
    models = [AutoModelForCausalLM.from_pretrained(quickstart / stage / "final") for stage in ("sft", "grpo")]
    assert models[0].config.moe_router_dtype == "float32"
    before, after = (dict(model.named_parameters()) for model in models)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    tokenizer = AutoTokenizer.from_pretrained(quickstart / "grpo" / "final")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("User: Hi\n\nAssistant:")
