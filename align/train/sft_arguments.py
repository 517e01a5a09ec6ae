"""A recipe as arguments of TRL's trainer."""

from __future__ import annotations

import torch
from trl import SFTConfig

from align.config.recipe import SftRecipe
from align.plan.fit import sft_steps
from align.seed import derive_seed


def trainer_arguments(recipe: SftRecipe, *, rows: int, held_out: bool, resumed: bool) -> SFTConfig:
    """The recipe in TRL's words. What align does itself (labels, packing, precision, clipping,
    schedule, checkpoints, progress) is switched off.

    Args:
        recipe: the recipe.
        rows: rows of all epochs together.
        held_out: whether there is anything to evaluate on.
        resumed: whether the run goes on from a checkpoint; only a fresh one is evaluated at the start.
    """
    sft, policy = recipe.sft, recipe.policy
    seed = derive_seed(recipe.seed, "sft") % 2**32
    sharded = recipe.cluster.processes > 1 and device_of(recipe) == "cuda"
    args = SFTConfig(
        output_dir=str(recipe.directory),
        max_steps=sft_steps(recipe, rows),
        per_device_train_batch_size=sft.batch_size,
        per_device_eval_batch_size=sft.batch_size,
        gradient_accumulation_steps=sft.gradient_accumulation,
        learning_rate=recipe.optim.lr,
        max_grad_norm=recipe.optim.grad_clip if sharded else 0.0,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        bf16=False,
        use_cpu=device_of(recipe) == "cpu",
        gradient_checkpointing=policy.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        dataloader_pin_memory=device_of(recipe) == "cuda",
        ddp_find_unused_parameters=False,
        fsdp=sharded,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=recipe.checkpoint.every,
        eval_strategy="steps" if held_out else "no",
        eval_steps=recipe.checkpoint.every,
        eval_on_start=held_out and not resumed,
        prediction_loss_only=True,
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )
    if sharded:
        from torch.distributed.fsdp import MixedPrecisionPolicy

        dtype = getattr(torch, policy.dtype)
        precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        args.fsdp_plugin_args["mixed_precision_policy"] = precision
        args.fsdp_plugin_args["state_dict_type"] = "SHARDED_STATE_DICT"
    return args


def device_of(recipe: SftRecipe) -> str:
    """``cpu`` or ``cuda``."""
    if recipe.cluster.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return recipe.cluster.device
