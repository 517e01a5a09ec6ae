"""Does reward-model training fit? As for the policy, with one number in place of the output embedding."""

from __future__ import annotations

import math
from dataclasses import replace

from align.config.recipe import RewardModelRecipe
from align.plan.fit import Plan, describe_device, training_flops
from align.plan.memory import TrainState, lora_parameters, trainer_memory
from align.plan.params import Shape


def plan_reward_model(recipe: RewardModelRecipe, shape: Shape, rows: int | None = None) -> Plan:
    """Plan reward-model training.

    Args:
        recipe: the recipe.
        shape: of its policy.
        rows: rows of all epochs together, where known.
    """
    rm, policy, count = recipe.rm, recipe.policy, recipe.cluster.processes
    body = replace(shape, tied=True)  # the output embedding goes
    trainable = (lora_parameters(body, policy.lora) if policy.lora else body.total) + shape.hidden
    sides = 2 if rm.loss == "bradley_terry" else 1
    pass_tokens = max(rm.micro_batch_tokens, sides * rm.max_length)
    state = TrainState(policy.dtype, count, trainable, pass_tokens, policy.gradient_checkpointing)
    device, device_bytes = describe_device(recipe.cluster)
    tokens = rm.batch_size * sides * rm.max_length
    flops = training_flops(body, trainable, rm.max_length, policy.gradient_checkpointing)
    return Plan(
        shape=body,
        trainable=trainable,
        memory=trainer_memory(body, state),
        devices=count,
        device=device,
        device_bytes=device_bytes,
        tokens_per_step=tokens,
        flops_per_step=tokens * flops,
        steps=rm.max_steps if rows is None else reward_steps(recipe, rows),
        notes=[
            "parameters: without the output embedding, which a reward model has not; a head of "
            f"{shape.hidden:,} comes on top",
            "tokens per step: if every conversation had the maximum length and pairs shared no prompt",
        ],
    )


def reward_steps(recipe: RewardModelRecipe, rows: int) -> int:
    """Optimiser steps over ``rows`` rows of all epochs together."""
    steps = math.ceil(rows / recipe.rm.batch_size)
    return min(steps, recipe.rm.max_steps) if recipe.rm.max_steps else steps
