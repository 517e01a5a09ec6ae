"""Bytes on one device, by kind.

Weights, gradients and optimiser state are exact; activations are an estimate (`docs/sft.md` says
how good). Communication buffers, the allocator's slack and the CUDA context (some GiB) are not
counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from align.config.policy import Dtype, LoraConfig
from align.plan.params import Shape
from align.plan.residency import TABLE, Household, Part

FP32 = 4
BYTES: dict[Dtype, int] = {"bfloat16": 2, "float32": 4}
LOGIT_TILE = (4096, 32768)
"""Positions and vocabulary entries whose logits exist at once under TRL's fused head."""


PART: dict[str, Part] = {
    "weights": "policy",
    "weights (fp32 shard)": "policy",
    "gathered layers": "policy",
    "master weights": "optimizer",
    "gradients": "optimizer",
    "AdamW moments": "optimizer",
    "activations (estimate)": "optimizer",
    "reference": "reference",
    "reward models": "scorers",
    "engine weights": "engine",
    "engine KV cache": "kv_cache",
}
"""Kind of memory → the part of ``align.plan.residency`` that it comes and goes with."""

UPDATE_ONLY = ("gradients", "activations (estimate)")
"""Kinds that only an update has, also where the rest of their part stays."""


@dataclass(frozen=True, slots=True)
class TrainState:
    """How a policy is trained."""

    dtype: Dtype
    """Type of the compute weights."""
    devices: int
    """Over how many devices weights, gradients and optimiser are sharded."""
    trainable: int
    """Parameters with a gradient."""
    tokens: int
    """Tokens in one forward pass on one device."""
    checkpointing: bool
    """Activations are computed again in the backward pass."""


def trainer_memory(shape: Shape, state: TrainState) -> dict[str, int]:
    """Bytes per device while training with AdamW on fp32 master weights.

    One device keeps compute weights beside the masters (fp32 weights are their own masters). Over
    several devices FSDP keeps fp32 shards and gathers one layer after the other, with the next
    one on its way.
    """
    width, count = BYTES[state.dtype], state.devices
    memory: dict[str, int] = {}
    if count == 1:
        memory["weights"] = shape.total * width
        if width != FP32:
            memory["master weights"] = state.trainable * FP32
    else:
        memory["weights (fp32 shard)"] = -(-shape.total * FP32 // count)
        memory["gathered layers"] = 2 * max(shape.layer(shape.layers - 1), shape.embedding) * width
    memory["gradients"] = -(-state.trainable * FP32 // count)
    memory["AdamW moments"] = -(-state.trainable * 2 * FP32 // count)
    memory["activations (estimate)"] = activations(shape, state.tokens, width, state.checkpointing)
    return memory


def activations(shape: Shape, tokens: int, width: int, checkpointing: bool) -> int:
    """Bytes kept for the backward pass, an estimate.

    Per token and layer: about eight hidden vectors (residuals, norms in fp32, attention output),
    queries, keys, values and output, four times the intermediate width, and the copies of the
    hidden vector that go to the experts. With checkpointing: one hidden vector per layer, and one
    layer in full.
    """
    around = 8 * shape.hidden + shape.attention_width
    dense = around + 4 * shape.dense_width
    sparse = around + 4 * shape.active_width + 2 * shape.experts_per_token * shape.hidden
    if checkpointing:
        elements = shape.layers * shape.hidden + max(dense, sparse if shape.moe_layers else 0)
    else:
        elements = (shape.layers - shape.moe_layers) * dense + shape.moe_layers * sparse
    logits = min(tokens, LOGIT_TILE[0]) * min(shape.vocabulary, LOGIT_TILE[1]) * FP32
    return tokens * (elements + 2 * shape.hidden) * width + logits


def kv_bytes_per_token(shape: Shape, dtype: Dtype = "bfloat16") -> int:
    """Bytes of the KV cache that one token takes, all layers."""
    return shape.kv_width * shape.layers * BYTES[dtype]


def lora_parameters(shape: Shape, lora: LoraConfig) -> int:
    """Parameters of the adapters that ``target_modules: all-linear`` gives: on the attention, and in
    dense models on the MLP too. An upper bound where a recipe names fewer layers.

    An adapter of a matrix [a, b] has rank × (a + b).
    """
    sides = sum(a + b for a, b in shape.attention_matrices)
    if not shape.moe_layers:
        sides += 3 * (shape.hidden + shape.dense_width)
    return lora.rank * shape.layers * sides


def memory_by_stage(memory: Mapping[str, int], household: Household) -> dict[str, dict[str, int]]:
    """What is on one device in each stage of a step, by the scheduler's own table: kind → bytes.

    Args:
        memory: kind → bytes, kinds as in ``PART``.
        household: the run's parts and which of them move.
    """
    return {
        stage: {
            kind: size
            for kind, size in memory.items()
            if PART[kind] in (TABLE[stage].uses if kind in UPDATE_ONLY else there)
        }
        for stage, there in household.during_a_step().items()
        if TABLE[stage].uses & household.present
    }
