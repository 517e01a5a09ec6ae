"""What recipes of both TRL stages say in the words of its trainers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from align.config.policy import PolicyConfig
from align.config.recipe import TrlRecipe
from align.errors import RecipeError
from align.seed import derive_seed


def common_arguments(recipe: TrlRecipe) -> dict[str, Any]:
    """Arguments of any stage. What align does itself (tokens, precision, clipping, schedule, checkpoints,
    progress) is switched off."""
    policy, cpu = recipe.policy, device_of(recipe) == "cpu"
    return {
        "output_dir": str(recipe.directory),
        "learning_rate": recipe.optim.lr,
        "max_grad_norm": recipe.optim.grad_clip if sharded(recipe) else 0.0,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "max_length": None,
        "bf16": False,
        "use_cpu": cpu,
        "gradient_checkpointing": policy.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "dataloader_pin_memory": not cpu,
        "ddp_find_unused_parameters": False,
        "fsdp": sharded(recipe),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_steps": recipe.checkpoint.every,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": derive_seed(recipe.seed, recipe.kind) % 2**32,
    }


def shard(args: TrainingArguments, policy: PolicyConfig) -> None:
    """Complete the arguments of a sharded run: compute in the policy's type, gradients in fp32 and sharded
    between passes."""
    if not args.fsdp:
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy

    # Without it FSDP keeps whole gradients in fp32 on every rank until the last pass of a step.
    args.accelerator_config.gradient_accumulation_kwargs = {"sync_each_batch": True}
    precision = MixedPrecisionPolicy(param_dtype=getattr(torch, policy.dtype), reduce_dtype=torch.float32)
    args.fsdp_plugin_args["mixed_precision_policy"] = precision
    args.fsdp_plugin_args["state_dict_type"] = "SHARDED_STATE_DICT"


def loaded_policy(args: TrainingArguments, policy: PolicyConfig) -> tuple[PolicyConfig, str]:
    """The policy as it is loaded, and the device: the shards of FSDP are the fp32 masters."""
    if args.fsdp:
        policy = policy.model_copy(update={"dtype": "float32"})
    return policy, "cpu" if args.use_cpu or args.fsdp else str(args.device)


def sharded(recipe: TrlRecipe) -> bool:
    """Whether FSDP spreads the weights over the processes."""
    return recipe.cluster.processes > 1 and device_of(recipe) == "cuda"


def device_of(recipe: TrlRecipe) -> str:
    """``cpu`` or ``cuda``."""
    if recipe.cluster.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return recipe.cluster.device


def check_processes(recipe: TrlRecipe, *, file: Path) -> None:
    """Refuse what several processes cannot train.

    Raises:
        RecipeError: a launcher started another number of them than the recipe says, or they are on the CPU,
            in another type than float32.
    """
    started = int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else None
    if started is not None and started != recipe.cluster.processes:
        raise RecipeError(
            f"a launcher started {started} processes, the recipe counts with {recipe.cluster.processes}: "
            "batches and steps would be others than it says",
            file=file,
            key="cluster.processes",
            remedy=f"set it to {started}, or start {recipe.cluster.processes}",
        )
    if recipe.cluster.processes > 1 and device_of(recipe) == "cpu" and recipe.policy.dtype != "float32":
        raise RecipeError(
            "several processes on the CPU train in float32 only",
            file=file,
            key="policy.dtype",
            remedy="set policy.dtype=float32, or cluster.processes=1",
        )
