"""Parameter counts from a model's configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from align.errors import ModelError

FAMILIES = ("deepseek_v2", "llama", "mistral")


@dataclass(frozen=True, slots=True)
class Shape:
    """What the planner needs to know of a model."""

    family: str
    hidden: int
    layers: int
    moe_layers: int
    vocabulary: int
    attention: int
    """Parameters of one layer's attention, norms inside it included."""
    attention_matrices: tuple[tuple[int, int], ...]
    """(inputs, outputs) of the linear layers of one layer's attention."""
    attention_width: int
    """Elements of query, key, value and output of one token in one layer."""
    score_width: int
    """heads × (query-key width + value width): multiply-adds of one query with one key, one layer."""
    kv_width: int
    """Elements of the KV cache of one token in one layer."""
    dense_mlp: int
    """Parameters of a dense MLP block."""
    dense_width: int
    """Its intermediate size."""
    expert: int
    """Parameters of one routed expert; 0 in dense models."""
    experts: int
    experts_per_token: int
    shared: int
    """Parameters of the shared experts of one layer."""
    active_width: int
    """Intermediate elements that one token produces in a MoE layer."""
    tied: bool
    """Input and output embedding are one matrix."""

    @property
    def embedding(self) -> int:
        """Parameters of one embedding matrix."""
        return self.vocabulary * self.hidden

    @property
    def total(self) -> int:
        """All parameters."""
        return self._count(self.experts)

    @property
    def active(self) -> int:
        """Parameters that one token uses, the whole input embedding counted."""
        return self._count(self.experts_per_token)

    @property
    def active_without_embedding(self) -> int:
        """The same without the input embedding; the output projection stays."""
        return self.active if self.tied else self.active - self.embedding

    def layer(self, index: int) -> int:
        """Parameters of layer ``index``, all experts included."""
        moe = index >= self.layers - self.moe_layers
        router = self.experts * self.hidden
        block = self.expert * self.experts + self.shared + router if moe else self.dense_mlp
        return self.attention + 2 * self.hidden + block

    def _count(self, experts: int) -> int:
        router = self.experts * self.hidden
        moe = self.moe_layers * (experts * self.expert + self.shared + router)
        dense = (self.layers - self.moe_layers) * self.dense_mlp
        around = self.layers * (self.attention + 2 * self.hidden) + self.hidden
        return moe + dense + around + self.embedding * (1 if self.tied else 2)


class NoPlanError(ModelError):
    """The planner does not know the family; that hinders no run."""


def known_shape(config: Mapping[str, Any]) -> tuple[Shape, None] | tuple[None, str]:
    """:func:`read_shape`, or why there is no plan for a model that may well be trained."""
    try:
        return read_shape(config), None
    except NoPlanError as error:
        return None, error.message


def known_active(config: Mapping[str, Any]) -> int | None:
    """Weights that one token uses, where the planner knows the model."""
    shape, _ = known_shape(config)
    return None if shape is None else shape.active_without_embedding


def read_shape(config: Mapping[str, Any]) -> Shape:
    """Read a ``config.json`` mapping of the DeepSeek-V2 or the Llama family.

    Raises:
        NoPlanError: another family.
        ModelError: a key is missing.
    """
    family = config.get("model_type")
    try:
        if family == "deepseek_v2":
            return _deepseek_v2(config)
        if family in FAMILIES:
            return _llama(config)
    except KeyError as error:
        raise ModelError(
            f"the model configuration has no {error.args[0]!r}", file="config.json", remedy="complete it"
        ) from error
    raise NoPlanError(
        f"no plan for models of type {family!r}",
        file="config.json",
        key="model_type",
        remedy=f"known families: {', '.join(FAMILIES)}",
    )


def _deepseek_v2(config: Mapping[str, Any]) -> Shape:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    latent, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
    query, value = config["qk_nope_head_dim"] + rope, config["v_head_dim"]
    rank = config.get("q_lora_rank")
    matrices = [
        (hidden, latent + rope),
        (latent, heads * (query - rope + value)),
        (heads * value, hidden),
        *([(hidden, rank), (rank, heads * query)] if rank else [(hidden, heads * query)]),
    ]
    norms = latent + (rank or 0)
    bias = (rank or 0) + latent + rope + hidden if config.get("attention_bias") else 0
    experts = config.get("n_routed_experts") or 0
    width = config["moe_intermediate_size"] if experts else 0
    shared = (config.get("n_shared_experts") or 0) * width
    per_token = config["num_experts_per_tok"] if experts else 0
    layers = config["num_hidden_layers"]
    return Shape(
        family="deepseek_v2",
        hidden=hidden,
        layers=layers,
        moe_layers=layers - min(layers, config.get("first_k_dense_replace", 0)) if experts else 0,
        vocabulary=config["vocab_size"],
        attention=sum(a * b for a, b in matrices) + norms + bias,
        attention_matrices=tuple(matrices),
        attention_width=heads * (2 * query + 2 * value) + latent + rope + (rank or 0),
        score_width=heads * (query + value),
        kv_width=latent + rope,
        dense_mlp=3 * hidden * config["intermediate_size"],
        dense_width=config["intermediate_size"],
        expert=3 * hidden * width,
        experts=experts,
        experts_per_token=per_token,
        shared=3 * hidden * shared,
        active_width=per_token * width + shared,
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def _llama(config: Mapping[str, Any]) -> Shape:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    groups = config.get("num_key_value_heads") or heads
    size = config.get("head_dim") or hidden // heads
    matrices = [(hidden, heads * size), *[(hidden, groups * size)] * 2, (heads * size, hidden)]
    bias = size * (heads + 2 * groups) + hidden if config.get("attention_bias") else 0
    mlp_bias = 2 * config["intermediate_size"] + hidden if config.get("mlp_bias") else 0
    return Shape(
        family=config["model_type"],
        hidden=hidden,
        layers=config["num_hidden_layers"],
        moe_layers=0,
        vocabulary=config["vocab_size"],
        attention=sum(a * b for a, b in matrices) + bias,
        attention_matrices=tuple(matrices),
        attention_width=2 * size * (heads + groups),
        score_width=2 * heads * size,
        kv_width=2 * groups * size,
        dense_mlp=3 * hidden * config["intermediate_size"] + mlp_bias,
        dense_width=config["intermediate_size"],
        expert=0,
        experts=0,
        experts_per_token=0,
        shared=0,
        active_width=0,
        tied=bool(config.get("tie_word_embeddings", False)),
    )
