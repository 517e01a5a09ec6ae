"""Numbers of a config.json that arithmetic needs: each is one, and none is too small."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from align.errors import ModelError

_COUNTS = {
    "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "intermediate_size",
    "max_position_embeddings", "kv_lora_rank", "v_head_dim", "moe_intermediate_size",
    "n_embd", "n_layer", "n_head", "n_positions", "n_ctx", "d_model", "ffn_dim",
}  # fmt: skip
_CHOSEN = {
    "num_key_value_heads": 1, "head_dim": 1, "q_lora_rank": 1, "n_inner": 1,
    "qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "first_k_dense_replace": 0, "n_routed_experts": 0,
    "num_local_experts": 0, "num_experts": 0, "moe_num_experts": 0, "n_shared_experts": 0,
    "num_experts_per_tok": 0, "n_group": 0, "topk_group": 0, "sliding_window": 0,
}  # fmt: skip
"""Key → smallest count. These may be null: then a family has a rule for them."""
_REALS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rope_theta")
_PER_LAYER = {"gemma3n": ("intermediate_size",), "gemma3n_text": ("intermediate_size",)}
"""Families in which a count may be a list, one for each layer."""


def check_sizes(config: Mapping[str, Any], *, file: str | Path) -> None:
    """Refuse a configuration in which something else stands where a number belongs.

    Text, ``true``, a list and null are none; counts are whole and not below what they count from. A key
    that is not there has its family's default.

    Args:
        config: a config.json.
        file: it, for the message.

    Raises:
        ModelError: naming the first such key.
    """
    for key, value, least in _numbers(config, ""):
        real = least is None
        least = least or 0
        fits = not isinstance(value, bool) and isinstance(value, (int, float) if real else int)
        if fits and math.isfinite(value) and (value > 0 if real else value >= least):
            continue
        wanted = "a number above 0" if real else f"a whole number of at least {least}"
        raise ModelError(
            f"{key} is {wanted}, not {_written(value)}",
            file=file,
            key=key,
            remedy="restore the config.json that belongs to these weights",
        )


def _numbers(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any, int | None]]:
    """(dotted key, value, smallest count; None for a real number) of all that must be one."""
    lists = _PER_LAYER.get(str(config.get("model_type")), ())
    for name, value in config.items():
        if isinstance(value, list) and name in lists:
            continue
        if name in _COUNTS:
            yield prefix + name, value, 1
        elif value is None:
            continue
        elif name in _CHOSEN:
            yield prefix + name, value, _CHOSEN[name]
        elif name in _REALS:
            yield prefix + name, value, None
    inner = config.get("text_config")
    if isinstance(inner, Mapping):
        yield from _numbers(inner, "text_config.")


def _written(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
