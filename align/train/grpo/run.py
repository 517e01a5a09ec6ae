"""A whole GRPO run: checked, started, stepped, evaluated and saved when due."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from align.checkpoint.store import CheckpointStore
from align.cluster.memory import seldom_collected
from align.config.recipe import GrpoRecipe
from align.report.reporter import Reporter
from align.report.run_directory import RunDirectory
from align.report.timing import StageClock
from align.train.grpo.ahead import grpo_async
from align.train.grpo.build import Job, start_job
from align.train.grpo.last_step import LastStep
from align.train.grpo.loop import grpo
from align.train.grpo.prepared import prepare
from align.train.interrupt import StopRequest


def run_grpo(recipe: GrpoRecipe, *, file: Path, resume: bool = False) -> Path:
    """Run the whole job and return its run directory.

    Raises:
        AlignError: bad input (before any engine starts) or a failed run.
        KeyboardInterrupt: stopped by the user, after a checkpoint.
    """
    prepared = prepare(recipe, file=file)
    run = RunDirectory.create(
        recipe.run_dir or f"runs/{recipe.name}", recipe.model_dump(mode="json"), resume=resume
    )
    store = CheckpointStore(run.checkpoints, recipe.checkpoint.keep, run.recipe_hash)
    checkpoint = store.latest() if resume else None
    start = checkpoint.step if checkpoint else 0
    with ExitStack() as stack:
        stack.enter_context(run)
        reporter = stack.enter_context(Reporter(run, recipe.report, recipe.grpo.steps, start))
        job = start_job(recipe, prepared, run, reporter, stack, file)
        stack.enter_context(seldom_collected())
        if checkpoint:
            job.restore(checkpoint)
        job.parts.sync.push()
        if not checkpoint:
            job.evaluate(0)
        _loop(recipe, job, store, start, stack)
        if job.parts.carried:
            reporter.message(f"left out, being unfinished: {len(job.parts.carried)} groups of the last step")
        job.policy.save_model(run.final.resolve())
    return run.path


def _loop(recipe: GrpoRecipe, job: Job, store: CheckpointStore, start: int, stack: ExitStack) -> None:
    stop = stack.enter_context(StopRequest())
    steps = stack.enter_context(LastStep(job, store, start))
    last, evaluate_every = recipe.grpo.steps, recipe.eval.every
    for step in _steps(recipe, job, start):
        steps.finished(step)
        if step == last or (evaluate_every and step % evaluate_every == 0):
            job.evaluate(step)
        if step == last or step % recipe.checkpoint.every == 0 or stop.requested:
            steps.save()
        if stop.requested and step < last:
            job.reporter.message(f"stopped after step {step}; continue with --resume")
            raise KeyboardInterrupt


def _steps(recipe: GrpoRecipe, job: Job, start: int) -> Iterator[int]:
    if recipe.grpo.schedule == "async":
        return _ahead(recipe, job, start)
    return grpo(recipe, job.parts, start, job.after_step)


def _ahead(recipe: GrpoRecipe, job: Job, start: int) -> Iterator[int]:
    job.peak_gib()  # of starting: no step's
    for step in grpo_async(recipe, job.parts, start, job.after_step, StageClock()):
        yield step
        job.peak_gib()  # of an evaluation or a checkpoint
