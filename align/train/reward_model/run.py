"""Reward-model training on TRL's RewardTrainer (DeepSeek-V2 §4.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from align.checkpoint.store import CheckpointStore
from align.config.recipe import RewardModelRecipe
from align.dataset.preference.load import remarks
from align.model.attention.cpu import use_cpu_attention
from align.model.compiled import compile_layers
from align.model.files.load import load_config
from align.model.files.save import save_model
from align.model.score.head import add_score_lora, is_reward_model, load_score_model
from align.plan.reward_model import reward_steps
from align.report.reporter import Reporter
from align.train.interrupt import StopRequest
from align.train.reward_model.arguments import trainer_arguments
from align.train.reward_model.batches import Collator
from align.train.reward_model.data import Prepared, prepare, ready_tokenizer
from align.train.reward_model.held_out import CALIBRATION, HELD_OUT, write_json
from align.train.reward_model.trainer import RewardModelTrainer
from align.train.trl.arguments import loaded_policy
from align.train.trl.launch import train_or_launch
from align.train.trl.run import training_run, whole_model


def run_reward_model(recipe: RewardModelRecipe, *, file: Path, resume: bool = False) -> Path:
    """Run the whole job and return its run directory.

    Raises:
        AlignError: bad input (before any weights are loaded) or a failed run.
        KeyboardInterrupt: stopped by the user, after a checkpoint.
    """
    train_or_launch(recipe, prepare(recipe, file=file), train, _launched, resume=resume)
    return recipe.directory


def _launched(recipe: RewardModelRecipe, resume: bool, data: Path) -> None:
    train(recipe, Prepared.load(data, ready_tokenizer(recipe)), resume=resume)


def train(recipe: RewardModelRecipe, prepared: Prepared, *, resume: bool) -> None:
    """The part of :func:`run_reward_model` that every training process does."""
    with training_run(recipe, reward_steps(recipe, len(prepared.rows)), resume=resume) as run:
        if run.finished and (recipe.directory / "final" / CALIBRATION).is_file():
            return
        if run.reporter:
            for line in remarks(prepared.summary, recipe.rm.max_length):
                run.reporter.message(line)
        trainer = build_trainer(
            recipe, prepared, run.store, run.reporter, run.stop, resumed=run.checkpoint is not None
        )
        run.train(trainer)
        _save_final(trainer, recipe)


def build_trainer(
    recipe: RewardModelRecipe,
    prepared: Prepared,
    store: CheckpointStore,
    reporter: Reporter | None,
    stop: StopRequest,
    *,
    resumed: bool,
) -> RewardModelTrainer:
    """Load the policy, put a head on it, and put the trainer together."""
    # A fresh head has nothing to be measured; a reward model that is trained on has.
    again = is_reward_model(load_config(recipe.policy)) and not resumed
    args = trainer_arguments(recipe, rows=len(prepared.rows), measure_first=again)
    policy, device = loaded_policy(args, recipe.policy)
    pad = prepared.tokenizer.pad_token_id
    model: Any = load_score_model(policy, seed=recipe.seed, pad=pad, device=device)
    if args.use_cpu:
        use_cpu_attention(model)
    if policy.lora:
        torch.manual_seed(args.seed)  # the adapters' first weights
        model = add_score_lora(model, policy.lora)
    compile_layers(model, policy.compile, on_cpu=args.use_cpu)
    return RewardModelTrainer(
        recipe,
        model,
        args,
        store=store,
        reporter=reporter,
        stop=stop,
        facts=prepared.facts,
        train_dataset=prepared.rows,
        eval_dataset=prepared.held_out,
        data_collator=Collator(pad),
        processing_class=prepared.tokenizer,
    )


def _save_final(trainer: RewardModelTrainer, recipe: RewardModelRecipe) -> None:
    """``final/``: adapters merged, experts apart, so that transformers and vLLM load it unchanged, and
    the calibration beside it."""
    if trainer.measured is None:  # resumed at the last step, which was measured and not saved
        trainer.evaluate()
    final, pad = recipe.directory / "final", trainer.processing_class.pad_token_id
    model = whole_model(trainer, lambda: _scored_policy(recipe, pad))
    if model is not None and trainer.measured is not None:
        save_model(model, trainer.processing_class, final)
        write_json(recipe.directory / HELD_OUT, trainer.measured.document)
        calibration = trainer.measured.calibration | {"max_length": recipe.rm.max_length}
        write_json(final / CALIBRATION, calibration)  # the last file: the run is done


def _scored_policy(recipe: RewardModelRecipe, pad: int) -> Any:
    model = load_score_model(recipe.policy, seed=recipe.seed, pad=pad)
    return add_score_lora(model, recipe.policy.lora) if recipe.policy.lora else model
