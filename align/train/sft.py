"""Supervised fine-tuning on TRL's SFTTrainer (DeepSeek-V2 §4.1)."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from align.checkpoint.store import Checkpoint, CheckpointStore
from align.config.recipe import SftRecipe
from align.model.compiled import compile_layers
from align.model.cpu_attention import use_cpu_attention
from align.model.flat_rows import use_flat_rows
from align.model.load import load_model
from align.model.lora import add_lora
from align.model.save import save_model
from align.plan.fit import sft_steps
from align.report.reporter import Reporter
from align.report.run_directory import RunDirectory, recipe_hash
from align.train.interrupt import StopRequest
from align.train.sft_arguments import trainer_arguments
from align.train.sft_batches import Collator
from align.train.sft_data import Prepared, prepare, ready_tokenizer
from align.train.sft_launch import in_launched_process, launch
from align.train.sft_trainer import PolicyTrainer


def run_sft(recipe: SftRecipe, *, file: Path, resume: bool = False) -> Path:
    """Run the whole job and return its run directory.

    With ``cluster.processes`` > 1 it starts that many processes through torch's elastic launcher;
    started by torchrun, it is one of them.

    Raises:
        AlignError: bad input (before any weights are loaded) or a failed run.
        KeyboardInterrupt: stopped by the user, after a checkpoint.
    """
    if recipe.cluster.processes > 1 and not in_launched_process():
        with TemporaryDirectory(prefix="align-sft-") as folder:
            prepare(recipe, file=file).save(Path(folder))  # once, not in every process
            launch(_launched, recipe, resume=resume, data=Path(folder))
    else:
        train(recipe, prepare(recipe, file=file), resume=resume)
    return recipe.directory


def _launched(recipe: SftRecipe, resume: bool, data: Path) -> None:
    train(recipe, Prepared.load(data, ready_tokenizer(recipe)), resume=resume)


def train(recipe: SftRecipe, prepared: Prepared, *, resume: bool) -> None:
    """The part of :func:`run_sft` that every training process does."""
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(max(1, (recipe.cluster.threads or os.cpu_count() or 1) // neighbours))
    steps = sft_steps(recipe, len(prepared.rows))
    first = int(os.environ.get("RANK", "0")) == 0
    resolved = recipe.model_dump(mode="json")
    store = CheckpointStore(recipe.directory / "checkpoints", recipe.checkpoint.keep, recipe_hash(resolved))
    with ExitStack() as stack:
        run: RunDirectory | None = None
        if first:
            run = RunDirectory.create(recipe.directory, resolved, resume=resume)
            stack.enter_context(run)
        checkpoint = store.latest() if resume else None
        start = checkpoint.step if checkpoint else 0
        reporter = stack.enter_context(Reporter(run, recipe.report, steps, start)) if run else None
        stop = stack.enter_context(StopRequest())
        trainer = build_trainer(recipe, prepared, store, reporter, stop, resumed=checkpoint is not None)
        _train(trainer, checkpoint)
        if stop.requested and trainer.state.global_step < steps:
            if reporter:
                reporter.message(f"stopped after step {trainer.state.global_step}; continue with --resume")
            raise KeyboardInterrupt
        _save_final(trainer, recipe)


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
    rows, held_out = prepared.rows, prepared.held_out
    args = trainer_arguments(recipe, rows=len(rows), held_out=held_out is not None, resumed=resumed)
    if args.fsdp:  # the shards are the fp32 masters; FSDP computes in the recipe's type
        policy = policy.model_copy(update={"dtype": "float32"})
    device = "cpu" if args.use_cpu or args.fsdp else str(args.device)
    model: Any = load_model(policy, seed=recipe.seed, device=device)
    if args.use_cpu and not use_flat_rows(model):
        use_cpu_attention(model)
    for config in (model.config, model.generation_config):  # the tokenizer's may be a stand-in
        config.pad_token_id = prepared.tokenizer.pad_token_id
    if policy.lora:
        torch.manual_seed(args.seed)  # the adapters' first weights
        model = add_lora(model, policy.lora)
    compile_layers(model, policy.compile, on_cpu=args.use_cpu)
    return PolicyTrainer(
        recipe,
        model,
        args,
        store=store,
        reporter=reporter,
        stop=stop,
        train_dataset=rows,
        eval_dataset=held_out,
        data_collator=Collator(prepared.tokenizer.pad_token_id),
        processing_class=prepared.tokenizer,
    )


def _train(trainer: PolicyTrainer, checkpoint: Checkpoint | None) -> None:
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
