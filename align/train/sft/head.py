"""The output head of supervised fine-tuning on a CPU.

TRL's fused head is written for GPUs. On a CPU it scores every position, trained or not, in tiles of
hundreds of MiB, most of its time spent on passes over them: 70% of a step of a 135M model. Here only
trained tokens are scored, in pieces that stay in the cache.
"""

from __future__ import annotations

import functools
import types
from typing import Any

from torch import Tensor
from trl.trainer.utils import FusedCausalLMOutput

from align.model.logprobs import token_logprobs
from align.model.output_head import beyond_product
from align.train.sft.batches import IGNORED


def use_cpu_head(model: Any) -> None:
    """Replace the head that TRL's trainer has added to a causal language model, where this one can.

    Args:
        model: the model itself, not its peft wrapper.
    """
    # TRL's head also computes the loss of routers.
    with_router_loss = getattr(model.config.get_text_config(), "output_router_logits", False)
    if beyond_product(model) or with_router_loss:
        return
    other = model.forward

    @functools.wraps(type(model).forward)
    def forward(
        self: Any, *args: Any, fused_lm_head: bool = False, labels: Tensor | None = None, **kwargs: Any
    ) -> Any:
        if not fused_lm_head or labels is None:
            return other(*args, labels=labels, **kwargs)
        return _fused(self, labels, *args, **kwargs)

    model.forward = types.MethodType(forward, model)


def _fused(model: Any, labels: Tensor, *args: Any, **kwargs: Any) -> FusedCausalLMOutput:
    """What TRL's trainer reads: per-token values [B, S - 1], 0 where nothing is trained."""
    hidden = model.base_model(*args, **(kwargs | {"use_cache": False})).last_hidden_state[:, :-1]
    labels = labels[:, 1:]
    mask = labels != IGNORED
    found = token_logprobs(hidden[mask], model.get_output_embeddings().weight, labels[mask])
    logprobs, entropy, likeliest = (each.new_zeros(mask.shape).masked_scatter(mask, each) for each in found)
    return FusedCausalLMOutput(log_probs=logprobs, entropy=entropy, is_top1=likeliest, label_mask=mask)
