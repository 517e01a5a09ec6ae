"""What a config.json says that only one side computes with: the trainer, or vLLM, which samples.

Such a policy is sampled from one model and trained as another. In bfloat16 the difference can be as small as
rounding, so that no comparison of the two sides' log-probabilities would tell. The table is of vLLM 0.32 and
transformers 5.19; a family without an entry has only that comparison.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from align.errors import ModelError

Side = Literal["vLLM", "the trainer"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a configuration, and the values under which both sides compute the same."""

    name: str
    follower: Side
    """The side that computes with it; the other one does not read it, or has one fixed value."""
    agreed: tuple[Any, ...] | Callable[[Any], tuple[Any, ...]]
    """Absence counts as None."""

    def values(self, config: Any) -> tuple[Any, ...]:
        """The agreed values for a configuration."""
        return self.agreed(config) if callable(self.agreed) else self.agreed


def sampler(name: str, *agreed: Any) -> Field:
    """A field that only vLLM computes with."""
    return Field(name, "vLLM", agreed)


def trainer(name: str, *agreed: Any) -> Field:
    """A field that only transformers computes with."""
    return Field(name, "the trainer", agreed)


def _split_hidden(config: Any) -> tuple[Any, ...]:
    return (config.hidden_size // config.num_attention_heads, None)


def _own_heads(config: Any) -> tuple[Any, ...]:
    return (config.num_attention_heads,)


def _qkv_bias(config: Any) -> tuple[Any, ...]:
    return (True, None) if config.attention_bias else (False, None)


def _all_full(config: Any) -> tuple[Any, ...]:
    """Only vLLM gives some layers of a Llama a window."""
    types = getattr(config, "layer_types", None)
    return (types if types and set(types) == {"full_attention"} else None,)


def _groups(config: Any) -> tuple[Any, ...]:
    """vLLM always picks groups first; transformers only where topk_method says so."""
    if config.topk_method == "greedy":
        return (1, config.topk_group) if config.topk_group else (1,)
    return tuple(range(1, config.n_routed_experts + 1))


def _groups_picked(config: Any) -> tuple[Any, ...]:
    return tuple(range(1, (config.n_group or 1) + 1))


_ALL = (sampler("is_causal", True, None), sampler("llama_4_scaling", None))
_SILU = trainer("hidden_act", "silu")
_HEAD_DIM = Field("head_dim", "the trainer", _split_hidden)
_UNTIED = trainer("tie_word_embeddings", False)
_CHUNKED = sampler("dual_chunk_attention_config", None)
_LLAMA = (
    _SILU,
    sampler("bias", False, None),
    sampler("logit_scale", 1.0, None),
    Field("layer_types", "vLLM", _all_full),
)
_NO_BIAS = tuple(sampler(name, False, None) for name in ("attention_bias", "mlp_bias", "qkv_bias"))
_JITTER = trainer("router_jitter_noise", 0.0, None)
_GRANITE = (
    _SILU,
    sampler("layer_types", None),
    sampler("layer_rope_theta", None),
    sampler("attention_sinks", False, None),
)
_GRANITE_MOE = (*_GRANITE, trainer("attention_bias", False, None), _HEAD_DIM)
_MLA = (
    _SILU,
    sampler("rms_norm_eps", 1e-6),  # of the latents; transformers has one fixed value there
    sampler("moe_layer_freq", 1, None),
    sampler("index_topk", None),
    sampler("rswa_window", None),
    trainer("attention_bias", False, None),
    Field("num_key_value_heads", "the trainer", _own_heads),
    _UNTIED,
)

FIELDS: dict[str, tuple[Field, ...]] = {
    "llama": (*_LLAMA, Field("qkv_bias", "vLLM", _qkv_bias)),
    "mistral": (*_LLAMA, *_NO_BIAS, sampler("ada_rms_norm_t_cond", False, None)),
    "phi3": (*_LLAMA, *_NO_BIAS),
    "ernie4_5": (*_LLAMA, *_NO_BIAS, trainer("use_bias", False)),
    "nemotron": (sampler("bias", False, None), sampler("logit_scale", 1.0, None)),
    "gemma": (
        trainer("hidden_act", "gelu_pytorch_tanh"),  # vLLM takes "gelu" for this one
        sampler("hidden_activation", "gelu_pytorch_tanh", None),
        trainer("use_bidirectional_attention", False, None),
        trainer("attention_bias", False, None),
    ),
    "gpt2": (trainer("scale_attn_weights", True),),
    "opt": (trainer("layerdrop", 0.0),),
    "stablelm": (
        _SILU,
        _HEAD_DIM,
        trainer("qk_layernorm", False, None),
        trainer("use_parallel_residual", False, None),
        sampler("norm_eps", None),
    ),
    "glm4": (_SILU,),
    "qwen2": (_SILU, sampler("qk_norm", False, None), _CHUNKED, _HEAD_DIM),
    "qwen3": (_SILU, trainer("attention_bias", False, None), _CHUNKED),
    "qwen2_moe": (_SILU, trainer("qkv_bias", True), _CHUNKED, _HEAD_DIM),
    "qwen3_moe": (
        _SILU,
        trainer("attention_bias", False, None),
        sampler("shared_expert_intermediate_size", 0, None),
        _CHUNKED,
    ),
    "mixtral": (_SILU, _JITTER),
    "olmoe": (
        _SILU,
        trainer("norm_topk_prob", False, None),
        trainer("clip_qkv", None),
        trainer("rms_norm_eps", 1e-5),
        trainer("attention_bias", False, None),
        _HEAD_DIM,
        _UNTIED,
    ),
    "granite": (*_LLAMA, *_GRANITE),
    "granitemoe": _GRANITE_MOE,
    "granitemoeshared": _GRANITE_MOE,
    "ernie4_5_moe": (_SILU, trainer("moe_norm_min", 1e-12), sampler("use_moe", True, None)),
    "glm4_moe": (_SILU, _UNTIED),
    "minimax_m2": (
        _SILU,
        _UNTIED,
        _JITTER,
        sampler("scoring_func", "sigmoid"),
        sampler("use_routing_bias", True),
        sampler("attention_bias", False, None),
    ),
    "deepseek_v2": (
        *_MLA,
        sampler("norm_topk_prob", False, None),
        sampler("scoring_func", "softmax", None),
        trainer("topk_method", "greedy", "group_limited_greedy"),
        Field("n_group", "vLLM", _groups),
        Field("topk_group", "vLLM", _groups_picked),
        trainer("mlp_bias", False, None),
    ),
    "deepseek_v3": (
        *_MLA,
        sampler("topk_method", "noaux_tc"),
        sampler("scoring_func", "sigmoid"),
        trainer("rope_interleave", True),
    ),
}
"""By ``model_type``; the fields of ``_ALL`` belong to each."""


def check_agreement(config: Any, *, file: str | Path | None = None) -> None:
    """Refuse a configuration that transformers and vLLM would compute differently.

    Args:
        config: a transformers configuration.
        file: its config.json, for the message.

    Raises:
        ModelError: naming the field and the values that both sides compute alike.
    """
    for key, value, agreed, follower in _disagreements(config):
        other = "the trainer" if follower == "vLLM" else "vLLM"
        raise ModelError(
            f"{follower} computes with {key}: {_written(value)}, {other} does not: one model would be "
            "sampled and another trained",
            file=file,
            key=key,
            remedy=f"use another policy, or set {key} to {_choice(agreed)} if it was trained like that",
        )


def check_architecture(config: Any, *, file: str | Path | None = None) -> None:
    """Refuse a configuration whose ``architectures`` belong to another ``model_type``.

    vLLM builds the model that ``architectures`` names, transformers that of ``model_type``. Names that
    transformers does not know are left to them.

    Args:
        config: a transformers configuration.
        file: its config.json, for the message.

    Raises:
        ModelError: naming both.
    """
    known = _model_types()
    for name in config.architectures or ():
        types = known.get(name, frozenset())
        if types and config.model_type not in types:
            raise ModelError(
                f"architectures names {name}, a model of type {' or '.join(sorted(types))}, and model_type "
                f"says {config.model_type}: vLLM would sample from the first, and the second be trained",
                file=file,
                key="architectures",
                remedy="restore the config.json that belongs to these weights",
            )


@cache
def _model_types() -> dict[str, frozenset[str]]:
    """Class of transformers → the model types that it is the class of."""
    from transformers.models.auto import modeling_auto

    found: dict[str, set[str]] = {}
    for table, names in vars(modeling_auto).items():
        if table.endswith("MAPPING_NAMES"):
            for kind, classes in names.items():
                for name in (classes,) if isinstance(classes, str) else classes:
                    found.setdefault(name, set()).add(kind)
    return {name: frozenset(kinds) for name, kinds in found.items()}


_Disagreement = tuple[str, Any, tuple[Any, ...], Side]


def _disagreements(config: Any) -> Iterator[_Disagreement]:
    if config.model_type not in FIELDS:
        return
    for field in (*FIELDS[config.model_type], *_ALL):
        value = getattr(config, field.name, None)
        if value not in field.values(config):
            yield field.name, value, field.values(config), field.follower
    yield from _rope(config)


_ROPE = {
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "factor",
    "original_max_position_embeddings",
}
_ROPE_MORE = {
    "llama3": {"low_freq_factor", "high_freq_factor"},
    "yarn": {"beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor", "truncate"},
    "longrope": {"short_factor", "long_factor", "attention_factor"},
}
_TURNS_A_PART = ("phi3", "glm4", "glm4_moe", "minimax_m2", "nemotron", "stablelm")
"""Families in which both sides follow ``partial_rotary_factor``."""


def _rope(config: Any) -> Iterator[_Disagreement]:
    rope = getattr(config, "rope_parameters", None) or {}
    deepseek = config.model_type.startswith("deepseek")
    kind = rope.get("rope_type", "default")
    kinds = ["default", "yarn"] if deepseek else ["default", "linear", "llama3", "yarn"]
    if config.model_type == "phi3":
        kinds.append("longrope")
    if kind not in kinds:
        yield "rope_parameters.rope_type", kind, tuple(kinds), "the trainer"
    for name in sorted(rope.keys() - {"partial_rotary_factor"} - _ROPE - _ROPE_MORE.get(kind, set())):
        if rope[name] is not None:
            yield f"rope_parameters.{name}", rope[name], (None,), "vLLM"
    part = rope.get("partial_rotary_factor")
    if part not in (None, 1.0) and config.model_type not in _TURNS_A_PART:
        yield "rope_parameters.partial_rotary_factor", part, (1.0,), "vLLM"
    if deepseek and kind == "yarn":
        yield from _deepseek_yarn(rope)


def _deepseek_yarn(rope: dict[str, Any]) -> Iterator[_Disagreement]:
    """vLLM scales by mscale / mscale_all_dim, transformers only where both are given."""
    if rope.get("attention_factor") is not None:
        yield "rope_parameters.attention_factor", rope["attention_factor"], (None,), "the trainer"
    if rope.get("truncate") not in (None, True):
        yield "rope_parameters.truncate", rope["truncate"], (True,), "the trainer"
    whole, all_dim = rope.get("mscale"), rope.get("mscale_all_dim")
    if not (whole and all_dim) and (whole not in (None, 1) or all_dim not in (None, 0)):
        lone, value = ("mscale", whole) if whole not in (None, 1) else ("mscale_all_dim", all_dim)
        yield f"rope_parameters.{lone}", value, (None,), "vLLM"


def _choice(agreed: tuple[Any, ...]) -> str:
    if len(agreed) > 4:
        return f"a value from {_written(agreed[0])} to {_written(agreed[-1])}"
    return " or ".join(map(_written, agreed))


def _written(value: Any) -> str:
    """A value as JSON has it."""
    return json.dumps(value, default=str)
