"""A recipe as arguments of TRL's RewardTrainer."""

from __future__ import annotations

from trl import RewardConfig

from align.config.recipe import RewardModelRecipe
from align.plan.reward_model import reward_steps
from align.train.trl.arguments import common_arguments, shard


def trainer_arguments(recipe: RewardModelRecipe, *, rows: int, measure_first: bool) -> RewardConfig:
    """The recipe in TRL's words; the passes of a step too are align's own.

    Args:
        recipe: the recipe.
        rows: rows of all epochs together.
        measure_first: whether held-out rows are scored before the first step.
    """
    rm, lora = recipe.rm, recipe.policy.lora
    steps = reward_steps(recipe, rows)
    args = RewardConfig(
        **common_arguments(recipe),
        max_steps=steps,
        per_device_train_batch_size=rm.batch_size // recipe.cluster.processes,
        per_device_eval_batch_size=rm.batch_size // recipe.cluster.processes,
        center_rewards_coefficient=rm.center or None,
        disable_dropout=not (lora and lora.dropout),
        eval_strategy="steps",
        eval_steps=rm.eval_every or steps,
        eval_on_start=measure_first,
    )
    shard(args, recipe.policy)
    return args
