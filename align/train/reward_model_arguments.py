"""A recipe as arguments of TRL's RewardTrainer."""

from __future__ import annotations

from typing import Any

import torch
from trl import RewardConfig

from align.config.recipe import RewardModelRecipe
from align.plan.reward_model import reward_steps
from align.seed import derive_seed
from align.train.sft_arguments import device_of


def device(recipe: RewardModelRecipe) -> str:
    """``cpu`` or ``cuda``."""
    any_recipe: Any = recipe  # device_of reads ``cluster``, which every recipe has
    return device_of(any_recipe)


def trainer_arguments(recipe: RewardModelRecipe, *, rows: int, measure_first: bool) -> RewardConfig:
    """The recipe in TRL's words. What align does itself (tokens, passes, precision, clipping,
    schedule, checkpoints, progress) is switched off.

    Args:
        recipe: the recipe.
        rows: rows of all epochs together.
        measure_first: whether held-out rows are scored before the first step.
    """
    rm, policy = recipe.rm, recipe.policy
    sharded = recipe.cluster.processes > 1 and device(recipe) == "cuda"
    steps = reward_steps(recipe, rows)
    args = RewardConfig(
        output_dir=str(recipe.directory),
        max_steps=steps,
        per_device_train_batch_size=rm.batch_size // recipe.cluster.processes,
        per_device_eval_batch_size=rm.batch_size // recipe.cluster.processes,
        learning_rate=recipe.optim.lr,
        max_grad_norm=recipe.optim.grad_clip if sharded else 0.0,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        max_length=None,
        center_rewards_coefficient=rm.center or None,
        disable_dropout=not (policy.lora and policy.lora.dropout),
        bf16=False,
        use_cpu=device(recipe) == "cpu",
        gradient_checkpointing=policy.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        dataloader_pin_memory=device(recipe) == "cuda",
        ddp_find_unused_parameters=False,
        fsdp=sharded,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=recipe.checkpoint.every,
        eval_strategy="steps",
        eval_steps=rm.eval_every or steps,
        eval_on_start=measure_first,
        report_to="none",
        disable_tqdm=True,
        seed=derive_seed(recipe.seed, "rm") % 2**32,
    )
    if sharded:
        from torch.distributed.fsdp import MixedPrecisionPolicy

        dtype = getattr(torch, policy.dtype)
        precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        args.fsdp_plugin_args["mixed_precision_policy"] = precision
        args.fsdp_plugin_args["state_dict_type"] = "SHARDED_STATE_DICT"
    return args
