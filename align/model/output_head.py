"""What the output head of a causal language model does beside a matrix product."""

from __future__ import annotations

from typing import Any

SCALED = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
)
"""Configuration keys of models whose logits are scaled or capped after the product."""


def beyond_product(model: Any) -> str | None:
    """What stands between ``hidden · weightᵀ`` and the logits, in words; None where nothing does.

    Args:
        model: a transformers model, not its peft wrapper; one without output embeddings has no logits.
    """
    head = model.get_output_embeddings()
    if head is None:
        return None
    if getattr(head, "bias", None) is not None:
        return "its output head has a bias"
    config = model.config.get_text_config()
    for key in SCALED:
        value = getattr(config, key, None)
        # A factor of 1 scales nothing; a cap of 1 does.
        if value is not None and (value != 1 or "softcapping" in key):
            return f"its logits are scaled ({key} {value:g})"
    return None
