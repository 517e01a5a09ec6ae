"""Reward-model training on TRL's RewardTrainer (DeepSeek-V2 §4.2)."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from align.checkpoint.store import Checkpoint, CheckpointStore
from align.config.recipe import RewardModelRecipe
from align.dataset.preferences import remarks
from align.model.compiled import compile_layers
from align.model.cpu_attention import use_cpu_attention
from align.model.load import load_config
from align.model.save import save_model
from align.model.score_head import add_score_lora, is_reward_model, load_score_model
from align.plan.reward_model import reward_steps
from align.report.reporter import Reporter
from align.report.run_directory import RunDirectory, recipe_hash
from align.train.interrupt import StopRequest
from align.train.reward_model_arguments import trainer_arguments
from align.train.reward_model_batches import Collator
from align.train.reward_model_data import Prepared, prepare, ready_tokenizer
from align.train.reward_model_held_out import CALIBRATION, HELD_OUT, write_json
from align.train.reward_model_trainer import RewardModelTrainer
from align.train.sft_launch import in_launched_process, launch


def run_reward_model(recipe: RewardModelRecipe, *, file: Path, resume: bool = False) -> Path:
    """Run the whole job and return its run directory.

    With ``cluster.processes`` > 1 it starts that many processes through torch's elastic launcher;
    started by torchrun, it is one of them.

    Raises:
        AlignError: bad input (before any weights are loaded) or a failed run.
        KeyboardInterrupt: stopped by the user, after a checkpoint.
    """
    if recipe.cluster.processes > 1 and not in_launched_process():
        with TemporaryDirectory(prefix="align-rm-") as folder:
            prepare(recipe, file=file).save(Path(folder))  # once, not in every process
            work: Any = _launched  # launch reads nothing of a recipe that is of SFT alone
            job: Any = recipe
            launch(work, job, resume=resume, data=Path(folder))
    else:
        train(recipe, prepare(recipe, file=file), resume=resume)
    return recipe.directory


def _launched(recipe: RewardModelRecipe, resume: bool, data: Path) -> None:
    train(recipe, Prepared.load(data, ready_tokenizer(recipe)), resume=resume)


def train(recipe: RewardModelRecipe, prepared: Prepared, *, resume: bool) -> None:
    """The part of :func:`run_reward_model` that every training process does."""
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(max(1, (recipe.cluster.threads or os.cpu_count() or 1) // neighbours))
    steps = reward_steps(recipe, len(prepared.rows))
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
        if start == steps and (recipe.directory / "final" / CALIBRATION).is_file():
            return  # finished before
        reporter = stack.enter_context(Reporter(run, recipe.report, steps, start)) if run else None
        if reporter:
            for line in remarks(prepared.summary, recipe.rm.max_length):
                reporter.message(line)
        stop = stack.enter_context(StopRequest())
        trainer = build_trainer(recipe, prepared, store, reporter, stop, resumed=checkpoint is not None)
        _train(trainer, checkpoint)
        if stop.requested and trainer.state.global_step < steps:
            if reporter:
                reporter.message(f"stopped after step {trainer.state.global_step}; continue with --resume")
            raise KeyboardInterrupt
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
    policy = recipe.policy
    # A fresh head has nothing to be measured; a reward model that is trained on has.
    again = is_reward_model(load_config(policy)) and not resumed
    args = trainer_arguments(recipe, rows=len(prepared.rows), measure_first=again)
    if args.fsdp:  # the shards are the fp32 masters; FSDP computes in the recipe's type
        policy = policy.model_copy(update={"dtype": "float32"})
    device = "cpu" if args.use_cpu or args.fsdp else str(args.device)
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


def _train(trainer: RewardModelTrainer, checkpoint: Checkpoint | None) -> None:
    if checkpoint is None:
        trainer.train()
        return
    if trainer.is_world_process_zero():
        checkpoint.verify()
    trainer.train(resume_from_checkpoint=str(checkpoint.path))


def _save_final(trainer: RewardModelTrainer, recipe: RewardModelRecipe) -> None:
    """``final/``: adapters merged, experts apart, so that transformers and vLLM load it unchanged, and
    the calibration beside it."""
    if trainer.measured is None:  # resumed at the last step, which was measured and not saved
        trainer.evaluate()
    model, final = trainer.model, recipe.directory / "final"
    if trainer.is_fsdp_enabled:
        state = trainer.accelerator.get_state_dict(model)  # collective; whole on the first rank
        if not trainer.is_world_process_zero():
            return
        pad = trainer.processing_class.pad_token_id
        model = load_score_model(recipe.policy, seed=recipe.seed, pad=pad)
        model = add_score_lora(model, recipe.policy.lora) if recipe.policy.lora else model
        model.load_state_dict(state)
    if trainer.is_world_process_zero() and trainer.measured is not None:
        save_model(model, trainer.processing_class, final)
        write_json(recipe.directory / HELD_OUT, trainer.measured.document)
        calibration = trainer.measured.calibration | {"max_length": recipe.rm.max_length}
        write_json(final / CALIBRATION, calibration)  # the last file: the run is done
