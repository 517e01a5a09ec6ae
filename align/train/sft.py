"""Supervised fine-tuning on TRL's SFTTrainer (DeepSeek-V2 §4.1)."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig

from align.checkpoint.store import Checkpoint, CheckpointStore
from align.config.recipe import SftRecipe
from align.dataset.chat import set_template
from align.dataset.conversations import Conversations, load_conversations
from align.errors import RecipeError
from align.model.load import load_config, load_model, load_tokenizer
from align.model.lora import add_lora
from align.model.moe import is_moe
from align.model.save import save_model
from align.plan.fit import sft_steps
from align.report.reporter import Reporter
from align.report.run_directory import RunDirectory, recipe_hash
from align.seed import derive_seed
from align.train.interrupt import StopRequest
from align.train.sft_batches import Collator, pack, training_rows
from align.train.sft_launch import in_launched_process, launch
from align.train.sft_trainer import PolicyTrainer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that can be checked before weights are loaded."""

    tokenizer: Any
    conversations: Conversations
    rows: Dataset
    """What is trained on, all epochs, in order."""
    held_out: Dataset | None
    steps: int
    """Optimiser steps of the whole run."""


def prepare(recipe: SftRecipe, *, file: Path) -> Prepared:
    """Resolve model configuration, tokenizer and data.

    Raises:
        AlignError: whichever of them is wrong, naming file, key and remedy.
    """
    config = load_config(recipe.policy)
    if recipe.sft.balance_alpha > 0 and not is_moe(config):
        raise RecipeError(
            "only MoE policies have a balance loss",
            file=file,
            key="sft.balance_alpha",
            remedy="leave it out for this policy",
        )
    if recipe.cluster.processes > 1 and device_of(recipe) == "cpu" and recipe.policy.dtype != "float32":
        raise RecipeError(
            "several processes on the CPU train in float32 only",
            file=file,
            key="policy.dtype",
            remedy="set policy.dtype=float32, or cluster.processes=1",
        )
    tokenizer = load_tokenizer(recipe.policy)
    set_template(tokenizer, recipe.policy.chat_template)
    conversations = load_conversations(recipe.data, tokenizer, recipe.sft, seed=recipe.seed, file=file)
    rows = training_rows(conversations.epoch, recipe.sft, seed=recipe.seed)
    held_out = conversations.heldout
    if held_out is not None:
        held_out = (pack(held_out, recipe.sft.max_length) if recipe.sft.packing else held_out).with_format("numpy")
    return Prepared(tokenizer, conversations, rows, held_out, sft_steps(recipe, len(rows)))


def run_sft(recipe: SftRecipe, *, file: Path, resume: bool = False) -> Path:
    """Run the whole job and return its run directory.

    With ``cluster.processes`` > 1 it starts that many processes through torch's elastic launcher;
    started by torchrun, it is one of them.

    Raises:
        AlignError: bad input (before any weights are loaded) or a failed run.
        KeyboardInterrupt: stopped by the user, after a checkpoint.
    """
    if recipe.cluster.processes > 1 and not in_launched_process():
        prepare(recipe, file=file)  # bad input shows here, once, and not in every process
        launch(recipe, file=file, resume=resume)
        return recipe.directory
    torch.set_num_threads(recipe.cluster.threads or os.cpu_count() or 1)
    prepared = prepare(recipe, file=file)
    first = int(os.environ.get("RANK", "0")) == 0
    resolved = recipe.model_dump(mode="json")
    store = CheckpointStore(recipe.directory / "checkpoints", recipe.checkpoint.keep, recipe_hash(resolved))
    with ExitStack() as stack:
        run: RunDirectory | None = None
        if first:
            run = RunDirectory.create(recipe.directory, resolved, resume=resume)
            stack.callback(run.close)
        checkpoint = store.latest() if resume else None
        start = checkpoint.step if checkpoint else 0
        reporter = stack.enter_context(Reporter(run, recipe.report, prepared.steps, start)) if run else None
        stop = stack.enter_context(StopRequest())
        trainer = build_trainer(recipe, prepared, store, reporter, stop, resumed=checkpoint is not None)
        _train(trainer, prepared, checkpoint)
        if stop.requested and trainer.state.global_step < prepared.steps:
            if reporter:
                reporter.message(f"stopped after step {trainer.state.global_step}; continue with --resume")
            raise KeyboardInterrupt
        _save_final(trainer, recipe)
    return recipe.directory


def build_trainer(
    recipe: SftRecipe,
    prepared: Prepared,
    store: CheckpointStore,
    reporter: Reporter | None,
    stop: StopRequest,
    *,
    resumed: bool,
) -> PolicyTrainer:
    """Load the policy and put the trainer together."""
    policy = recipe.policy
    args = trainer_arguments(recipe, prepared, resumed=resumed)
    if args.fsdp:  # the shards are the fp32 masters; FSDP computes in the recipe's type
        policy = policy.model_copy(update={"dtype": "float32"})
    device = "cpu" if args.use_cpu or args.fsdp else str(args.device)
    model: Any = load_model(policy, seed=recipe.seed, device=device)
    if policy.lora:
        torch.manual_seed(args.seed)  # the adapters' first weights
        model = add_lora(model, policy.lora)
    return PolicyTrainer(
        recipe,
        model,
        args,
        store=store,
        reporter=reporter,
        stop=stop,
        train_dataset=prepared.rows,
        eval_dataset=prepared.held_out,
        data_collator=Collator(prepared.tokenizer.pad_token_id),
        processing_class=prepared.tokenizer,
    )


def trainer_arguments(recipe: SftRecipe, prepared: Prepared, *, resumed: bool) -> SFTConfig:
    """The recipe in TRL's words. What align does itself (labels, packing, precision, clipping,
    schedule, checkpoints, progress) is switched off."""
    sft, policy = recipe.sft, recipe.policy
    seed = derive_seed(recipe.seed, "sft") % 2**32
    sharded = recipe.cluster.processes > 1 and device_of(recipe) == "cuda"
    args = SFTConfig(
        output_dir=str(recipe.directory),
        max_steps=prepared.steps,
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
        eval_strategy="steps" if prepared.held_out is not None else "no",
        eval_steps=recipe.checkpoint.every,
        eval_on_start=prepared.held_out is not None and not resumed,
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


def _train(trainer: PolicyTrainer, prepared: Prepared, checkpoint: Checkpoint | None) -> None:
    if checkpoint is None:
        trainer.train()
        return
    if trainer.is_world_process_zero():
        checkpoint.verify()
    trainer.train(resume_from_checkpoint=str(checkpoint.path))


def _save_final(trainer: PolicyTrainer, recipe: SftRecipe) -> None:
    """``final/``: adapters merged, experts apart, so that transformers and vLLM load it unchanged."""
    model, final = trainer.model, recipe.directory / "final"
    if trainer.is_fsdp_enabled:
        state = trainer.accelerator.get_state_dict(model)  # collective; whole on the first rank
        if not trainer.is_world_process_zero():
            return
        model = load_model(recipe.policy, seed=recipe.seed)
        model = add_lora(model, recipe.policy.lora) if recipe.policy.lora else model
        model.load_state_dict(state)
    if trainer.is_world_process_zero():
        save_model(model, trainer.processing_class, final)
