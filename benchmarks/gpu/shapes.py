"""Policies, recipes and batches of the parts."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import part
import torch

from align.algo.reduce import token_weights
from align.config.recipe import GrpoRecipe
from align.model.policy import PolicyModel
from align.plan.source import read_config
from align.types import TrainBatch

QUICKSTART = part.ROOT / "recipes/quickstart/policy"
"""A tiny DeepSeek-V2 whose latent has the true width: 3 layers, hidden size 128, 8 experts."""
V2_LITE = "deepseek-ai/DeepSeek-V2-Lite"
VOCABULARY = 640
"""Of the quickstart's tokenizer."""
ROOM = 48 << 30
"""Free bytes from which two layers of V2-Lite stand for a policy, with a copy of all it holds."""


def v2_lite(folder: Path, layers: int, **changes: Any) -> Path:
    """A model directory with V2-Lite's configuration, cut to ``layers``."""
    config = read_config(V2_LITE) | {"num_hidden_layers": layers, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def moderate(folder: Path, device: str) -> Path:
    """Two layers of V2-Lite, one of them with experts, where there is room; else the quickstart's policy."""
    if device == "cpu" or torch.cuda.mem_get_info()[0] < ROOM:
        return QUICKSTART
    return v2_lite(folder, 2, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1)


def recipe(path: Path, *, policy: dict[str, Any] | None = None, **sections: Any) -> GrpoRecipe:
    """Fresh weights in the shape of ``path``; the rest is there because a recipe needs it."""
    return GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "gpu",
            "policy": {"path": str(path), "init": "random", "tokenizer": str(QUICKSTART), **(policy or {})},
            "data": {"path": "none"},
            "rewards": {"terms": {"none": {"function": "none"}}},
            **sections,
        }
    )


def build(settings: GrpoRecipe, device: str) -> PolicyModel:
    """The policy, its fresh weights drawn on the device itself: on a CPU billions take minutes."""
    with torch.device(device):
        return PolicyModel(settings, device=device)


def batch(
    groups: int, members: int, prompt: int, completion: int, *, vary: bool = False, seed: int = 0
) -> TrainBatch:
    """Random tokens in groups; every completion is as long as ``completion``, or up to a half shorter."""
    source = random.Random(seed)

    def tokens(count: int) -> list[int]:
        return [source.randrange(VOCABULARY) for _ in range(count)]

    count = groups * members
    prompts = [tokens(prompt + (group if vary else 0)) for group in range(groups)]
    lengths = [completion - (source.randrange(completion // 2) if vary else 0) for _ in range(count)]
    return TrainBatch(
        prompt_ids=[f"p/{group}" for group in range(groups) for _ in range(members)],
        prompt_tokens=[each for each in prompts for _ in range(members)],
        completion_tokens=[tokens(length) for length in lengths],
        rollout_logprobs=[[-6.0] * length for length in lengths],
        advantages=[source.gauss(0, 1) for _ in range(count)],
        token_weights=token_weights(lengths, "sequence_mean", completion),
    )


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
