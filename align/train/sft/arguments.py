"""A recipe as arguments of TRL's SFTTrainer."""

from __future__ import annotations

from trl import SFTConfig

from align.config.recipe import SftRecipe
from align.plan.fit import sft_steps
from align.train.trl.arguments import common_arguments, shard


def trainer_arguments(recipe: SftRecipe, *, rows: int, held_out: bool, resumed: bool) -> SFTConfig:
    """The recipe in TRL's words; labels and packing too are align's own.

    Args:
        recipe: the recipe.
        rows: rows of all epochs together.
        held_out: whether there is anything to evaluate on.
        resumed: whether the run goes on from a checkpoint; only a fresh one is evaluated at the start.
    """
    sft = recipe.sft
    args = SFTConfig(
        **common_arguments(recipe),
        max_steps=sft_steps(recipe, rows),
        per_device_train_batch_size=sft.batch_size,
        per_device_eval_batch_size=sft.batch_size,
        gradient_accumulation_steps=sft.gradient_accumulation,
        dataset_kwargs={"skip_prepare_dataset": True},
        eval_strategy="steps" if held_out else "no",
        eval_steps=recipe.checkpoint.every,
        eval_on_start=held_out and not resumed,
        prediction_loss_only=True,
    )
    shard(args, recipe.policy)
    return args
