"""From a recipe to running parts. This file alone makes the concrete classes behind the Protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from align.checkpoint.store import CheckpointStore
from align.cluster.memory import take_together
from align.cluster.placement import Placement, cluster
from align.cluster.policy_actor import PolicyClient
from align.cluster.residency import Mover, Residency
from align.cluster.reward_pool import RewardPool
from align.cluster.rollout_actor import RolloutClient
from align.cluster.scorer_actor import ScorerClient, start_scorers
from align.cluster.weight_sync import WeightSync
from align.config.recipe import GrpoRecipe
from align.dataset.prompts import PromptSampler
from align.model.load import resolve_model
from align.plan.residency import Household, Part
from align.report.reporter import Reporter
from align.report.run_directory import RunDirectory
from align.report.timing import StageClock
from align.train.grpo import grpo
from align.train.grpo_async import grpo_async
from align.train.interrupt import StopRequest
from align.train.job import Job
from align.train.last_step import LastStep
from align.train.marks import Marks
from align.train.partial import pack
from align.train.parts import Parts
from align.train.prepared import Prepared, one_of_each_part, predicates, prepare
from align.train.sandbox_note import sandbox_note
from align.types import Group


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


def start_job(
    recipe: GrpoRecipe,
    prepared: Prepared,
    run: RunDirectory,
    reporter: Reporter,
    stack: ExitStack,
    file: Path,
) -> Job:
    placement = stack.enter_context(cluster(recipe.cluster))
    resident = not recipe.scheduled(placement.device)
    scorers = start_scorers(placement, recipe.rewards, resident=resident, file=file)
    rewards = RewardPool(
        recipe.rewards,
        seed=recipe.seed,
        compile_expression=predicates(file),
        max_new_tokens=recipe.rollout.max_new_tokens,
        run_dir=run.path,
        scorers=scorers,
        find_model=resolve_model,
        recipe=file,
    )
    stack.callback(rewards.close)
    rewards.smoke(one_of_each_part(prepared.prompts))
    if note := sandbox_note(term.function for term in rewards.terms):
        reporter.message(note)
    reporter.message("starting the policy and the rollout engine")
    policy, rollout, residency, peak_gib = _engines(recipe, prepared, placement, list(scorers.values()))
    reporter.message(residency.describe())
    sampler = PromptSampler(prepared.prompts, recipe.data, seed=recipe.seed)
    sync = WeightSync(policy.actor, rollout.actor, recipe, prepared.probe, residency.want)
    carried: list[Group] = []
    marks = Marks(
        lambda: {"sampler": sampler.state(), "rewards": rewards.state_dict(), "carried": pack(carried)}
    )
    parts = Parts(sampler, policy, rollout, rewards, sync, residency, prepared.decode, marks.note, carried)
    return Job(
        recipe=recipe,
        prepared=prepared,
        parts=parts,
        sampler=sampler,
        marks=marks,
        policy=policy,
        rollout=rollout,
        rewards=rewards,
        sync=sync,
        residency=residency,
        peak_gib=peak_gib,
        reporter=reporter,
        file=file,
    )


def _engines(
    recipe: GrpoRecipe, prepared: Prepared, placement: Placement, scorers: Sequence[ScorerClient]
) -> tuple[PolicyClient, RolloutClient, Residency, Callable[[], float]]:
    """Policy and rollout engine, started one after the other: both need all cores, and on a GPU the
    engine sizes itself by what is free. Last, what asks all actors for their peak memory, GiB."""
    household = Household.of(recipe, placement.device)
    trained: tuple[Part, ...] = ("policy", "optimizer", "reference")
    policy = PolicyClient.start(placement, recipe, prepared.chat_template)
    away = household.movable.intersection(trained)
    for part in away:
        policy.sleep(part)
    rollout = RolloutClient.start(placement, recipe, prepared.model)
    actors = [policy.actor, rollout.actor, *(scorer.actor for scorer in scorers)]
    peak_gib = partial(take_together, actors, placement.device)
    movers: dict[Part, Mover] = {"engine": rollout, "kv_cache": rollout}
    residency = Residency(
        household,
        movers | dict.fromkeys(trained, policy),
        household.present - away,
        # Asking an engine that samples would wait for it, and under `async` it samples all the time.
        peak_gib if recipe.grpo.schedule == "sync" else None,
    )
    return policy, rollout, residency, peak_gib
