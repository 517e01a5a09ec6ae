"""The gradients of a whole update against a plain loop over single completions: no packing, no chunks, no
micro-batches, the loss written out token by token."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from align.algo.reduce import token_weights
from align.config.recipe import GrpoRecipe
from align.model.attention import batching
from align.model.policy import PolicyModel
from align.types import TrainBatch

POLICY = Path(__file__).parents[3] / "recipes/quickstart/policy"
VOCABULARY = 640
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
GROUPS = {"a": (6, [7, 3, 5, 9]), "b": (4, [1, 8]), "c": (9, [4, 2, 6])}
"""Prompt tokens, and the tokens of each completion."""
BETA, LOW, HIGH, CAP, TEMPERATURE = 0.04, 0.2, 0.28, 1.2, 0.8


def policy_of(settings: dict[str, Any], folder: Path, **how: Any) -> PolicyModel:
    shutil.copytree(POLICY, folder)
    (folder / "config.json").write_text(json.dumps(settings))
    recipe = {
        "kind": "grpo",
        "name": "gradients",
        "policy": {"path": str(folder), "init": "random", "dtype": "float32", **how},
        "data": {"path": "none"},
        "rewards": {"terms": {"none": {"function": "none"}}},
        "rollout": {"temperature": TEMPERATURE},
        "grpo": {
            "beta": BETA,
            "clip_low": LOW,
            "clip_high": HIGH,
            "importance": {"level": "token", "cap": CAP},
            "micro_batch_tokens": 22,
        },
    }
    return PolicyModel(GrpoRecipe.model_validate(recipe), device="cpu")


def batch_of(policy: PolicyModel) -> TrainBatch:
    """Log-probabilities of engine, π_old and reference are the policy's own and noise."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(2, VOCABULARY, (count,), generator=generator).tolist()

    prompts = {name: tokens(length) for name, (length, _) in GROUPS.items()}
    rows = [(name, tokens(length)) for name, (_, lengths) in GROUPS.items() for length in lengths]
    batch = TrainBatch(
        prompt_ids=[name for name, _ in rows],
        prompt_tokens=[prompts[name] for name, _ in rows],
        completion_tokens=[completion for _, completion in rows],
        rollout_logprobs=[[]] * len(rows),
        advantages=torch.randn(len(rows), generator=generator).tolist(),
        token_weights=token_weights([len(completion) for _, completion in rows], "sequence_mean", 16),
    )
    own = policy.logprobs(batch)

    def noisy(row: list[float]) -> list[float]:
        return (torch.tensor(row) + 0.3 * torch.randn(len(row), generator=generator)).tolist()

    batch.old_logprobs = [noisy(row) for row in own]
    batch.rollout_logprobs = [noisy(row) for row in batch.old_logprobs]
    batch.ref_logprobs = [noisy(row) for row in own]
    return batch


def plain_gradients(model: Any, batch: TrainBatch) -> dict[str, Tensor]:
    """Minus the objective of DeepSeekMath eq. 3 with truncated importance weights, and its gradient."""
    assert batch.old_logprobs is not None
    assert batch.ref_logprobs is not None
    model.set_attn_implementation("eager")
    model.zero_grad(set_to_none=True)
    loss = torch.zeros(())
    for row in range(len(batch)):
        prompt, completion = batch.prompt_tokens[row], batch.completion_tokens[row]
        logits = model(input_ids=torch.tensor([prompt + completion]), use_cache=False).logits[0]
        scores = (logits / TEMPERATURE).log_softmax(-1)
        total = torch.zeros(())
        for place, token in enumerate(completion):
            new = scores[len(prompt) + place - 1, token]
            old, reference = batch.old_logprobs[row][place], batch.ref_logprobs[row][place]
            ratio, advantage = (new - old).exp(), batch.advantages[row]
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - LOW, 1 + HIGH) * advantage)
            weight = min(math.exp(old - batch.rollout_logprobs[row][place]), CAP)
            kl = (reference - new).exp() - (reference - new) - 1
            total = total - weight * surrogate + BETA * kl
        loss = loss + total / len(completion) / len(batch)
    loss.backward()
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


ADAPTERS = {"lora": {"rank": 4, "alpha": 8}}


@pytest.mark.parametrize(
    ("family", "how", "calls"),
    [
        ("llama", {}, 128),
        ("llama", {}, 0),  # completions of different lengths share no rectangle of attention
        # tests/model/test_compiled.py compares compiled layers with eager ones, gradients included.
        pytest.param("llama", {"compile": True}, 0, marks=pytest.mark.slow),
        ("llama", ADAPTERS, 128),
        ("deepseek_v2", {}, 0),
        ("deepseek_v2", {"experts": "eager"}, 128),
        ("deepseek_v2", ADAPTERS, 128),
    ],
    ids=["dense", "dense-cut", "dense-compiled", "dense-lora", "moe-cut", "moe-eager", "moe-lora"],
)
def test_an_update_has_the_gradients_of_a_plain_loop(
    family: str,
    how: dict[str, Any],
    calls: int,
    deepseek_v2: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "CALLS", calls)
    settings = LLAMA if family == "llama" else deepseek_v2(vocab_size=VOCABULARY, initializer_range=0.2)
    policy = policy_of(settings, tmp_path / "policy", **how)
    plain = policy_of(settings, tmp_path / "plain", **{**how, "compile": False}).model
    with torch.no_grad():
        for model in (policy.model, plain):
            for name, parameter in model.named_parameters():
                if ".lora_B." in name:  # zeros, which would leave lora_A without gradients
                    noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
                    parameter.copy_(0.1 * noise)
    batch = batch_of(policy)
    assert len(policy._micro_batches(batch)) >= 2
    expected = plain_gradients(plain, batch)

    seen: dict[str, Tensor] = {}

    def record(lr: float, when: str = "") -> float:
        seen.update(
            {name: each.grad for name, each in policy.optimizer.master.items() if each.grad is not None}
        )
        return 0.0

    monkeypatch.setattr(policy.optimizer, "step", record)
    metrics = policy.update(batch)

    assert metrics["train/clip_share"] > 0.05  # each branch of the loss is taken
    assert 0.05 < metrics["mismatch/capped_share"] < 0.95
    assert seen.keys() == expected.keys()
    assert max(float(each.abs().max()) for each in expected.values()) > 0.05
    worst = {name: float((seen[name] - each).abs().max()) for name, each in expected.items()}
    assert max(worst.values()) <= 1e-5, worst


def test_what_an_update_says_of_its_packing(tmp_path: Path) -> None:
    policy = policy_of(LLAMA, tmp_path / "policy")
    batch = batch_of(policy)
    # Fed are all tokens but the last. Of 22 tokens fit: c with all its completions, 9 + 5 + 3 + 1 = 18; of
    # a the longest two, 6 + 8 + 6 = 20, and the others, 6 + 4 + 2 = 12; b, 4 + 7 + 0 = 11.
    found = [
        sorted(len(batch.completion_tokens[row]) for row in rows) for rows in policy._micro_batches(batch)
    ]
    assert found == [[7, 9], [2, 4, 6], [3, 5], [1, 8]]
    metrics = policy.update(batch)
    assert metrics["train/fed_tokens"] == 20 + 18 + 12 + 11
    # Rows of the longest: 2 × 8, 3 × 5, 2 × 4, 2 × 7; in them 14, 9, 6 and 7 tokens.
    assert metrics["train/padding_share"] == pytest.approx(1 - (14 + 9 + 6 + 7) / (16 + 15 + 8 + 14))
    assert metrics["train/prompt_passes"] == 4 / 3
