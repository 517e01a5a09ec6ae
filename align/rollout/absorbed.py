"""Are the weights that MLA derives from others up to date?

MLA decodes with absorbed copies of ``kv_b_proj`` (DeepSeek-V2 report, §2.1.2) that prefill never touches, so
a prompt scored at once cannot show that they are stale. Where vLLM keeps them as they are, they are compared
with what they come from, exactly. Some kernels keep them packed: tokens written one by one show those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from align.errors import SyncError
from align.rollout.sampling import decode_probe_params, scored_params

CONTEXT = 16
"""Tokens of the probe that are read first."""
STEPS = 4
"""Tokens that are decoded."""


def check_absorbed(model: Any, dtype: torch.dtype) -> None:
    """Compare absorbed weights with ``kv_b_proj``.

    Args:
        model: of one vLLM worker.
        dtype: its type.

    Raises:
        SyncError: a copy differs.
    """
    from vllm.model_executor.layers.attention.mla_attention import MLAAttention, split_kv_b_proj

    for layer in model.modules():
        if not isinstance(layer, MLAAttention) or getattr(layer, "W_UV", None) is None:
            continue
        w_uk, w_uv = split_kv_b_proj(  # [latent, heads, nope], [latent, heads, value]
            layer.kv_b_proj,
            dtype,
            layer.kv_lora_rank,
            layer.num_heads,
            layer.qk_nope_head_dim,
            layer.v_head_dim,
        )
        if not torch.isfinite(w_uk.sum() + w_uv.sum()):
            raise SyncError(
                f"the weights of {layer.layer_name} that were pushed hold values that are no finite numbers",
                remedy="the policy has diverged: go on from the last checkpoint with --resume, "
                "with a lower optim.lr",
            )
        same = torch.equal(layer.W_UK_T, w_uk.permute(1, 2, 0)) and torch.equal(
            layer.W_UV, w_uv.transpose(0, 1)
        )
        if not same:
            raise SyncError(
                f"the engine decodes {layer.layer_name} with other weights than those that were pushed",
                remedy="the engine would decode with stale weights: restart from the last checkpoint with "
                "--resume",
            )


def decode_twice(llm: Any, token_ids: Sequence[int]) -> tuple[list[float], list[float]]:
    """Write a few tokens greedily, then score them at once.

    Args:
        llm: the engine.
        token_ids: a prompt; its first tokens are used.

    Returns:
        Log-probabilities, nats, of the likeliest tokens of each decoding step, as decoding gave them and as
        prefill gives them. Empty for models that decode with the same weights.
    """
    if not llm.llm_engine.model_config.use_mla:
        return [], []
    longest = llm.llm_engine.model_config.max_model_len - STEPS - 2
    prompt = list(token_ids[: max(1, min(CONTEXT, longest))])
    (written,) = llm.generate([{"prompt_token_ids": prompt}], decode_probe_params(STEPS + 1), use_tqdm=False)
    answer = written.outputs[0]
    whole = prompt + list(answer.token_ids)
    (read,) = llm.generate([{"prompt_token_ids": whole}], scored_params(), use_tqdm=False)
    decoded, prefilled = [], []
    # The first token comes out of prefill too.
    for step, scored in zip(answer.logprobs[1:], read.prompt_logprobs[len(prompt) + 1 :], strict=True):
        for token in step.keys() & scored.keys():
            decoded.append(step[token].logprob)
            prefilled.append(scored[token].logprob)
    return decoded, prefilled
