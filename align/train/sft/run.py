"""Supervised fine-tuning on TRL's SFTTrainer (DeepSeek-V2 §4.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from align.checkpoint.store import CheckpointStore
from align.config.recipe import SftRecipe
from align.model.attention.cpu import use_cpu_attention
from align.model.attention.flat_rows import use_flat_rows
from align.model.compiled import compile_layers
from align.model.files.load import load_model
from align.model.files.lora import add_lora
from align.model.files.save import save_model
from align.plan.fit import sft_steps
from align.report.reporter import Reporter
from align.train.interrupt import StopRequest
from align.train.sft.arguments import trainer_arguments
from align.train.sft.batches import Collator
from align.train.sft.data import Prepared, prepare, ready_tokenizer
from align.train.sft.trainer import PolicyTrainer
from align.train.trl.arguments import loaded_policy
from align.train.trl.launch import train_or_launch
from align.train.trl.run import training_run, whole_model


def run_sft(recipe: SftRecipe, *, file: Path, resume: bool = False) -> Path:
    """Run the whole job and return its run directory.

    Raises:
        AlignError: bad input (before any weights are loaded) or a failed run.
        KeyboardInterrupt: stopped by the user, after a checkpoint.
    """
    train_or_launch(recipe, prepare(recipe, file=file), train, _launched, resume=resume)
    return recipe.directory


def _launched(recipe: SftRecipe, resume: bool, data: Path) -> None:
    train(recipe, Prepared.load(data, ready_tokenizer(recipe)), resume=resume)


def train(recipe: SftRecipe, prepared: Prepared, *, resume: bool) -> None:
    """The part of :func:`run_sft` that every training process does.

    ``final/`` has adapters merged and experts apart, so that transformers and vLLM load it unchanged.
    """
    with training_run(recipe, sft_steps(recipe, len(prepared.rows)), resume=resume) as run:
        trainer = build_trainer(
            recipe, prepared, run.store, run.reporter, run.stop, resumed=run.checkpoint is not None
        )
        run.train(trainer)
        model = whole_model(trainer, lambda: _policy(recipe))
        if model is not None:
            save_model(model, trainer.processing_class, recipe.directory / "final")


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
    rows, held_out = prepared.rows, prepared.held_out
    args = trainer_arguments(recipe, rows=len(rows), held_out=held_out is not None, resumed=resumed)
    policy, device = loaded_policy(args, recipe.policy)
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


def _policy(recipe: SftRecipe) -> Any:
    model = load_model(recipe.policy, seed=recipe.seed)
    return add_lora(model, recipe.policy.lora) if recipe.policy.lora else model
