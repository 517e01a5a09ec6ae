"""From a recipe to running parts. This file alone knows the concrete classes behind the Protocols."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.checkpoint.store import Checkpoint, CheckpointStore
from align.cluster.placement import cluster
from align.cluster.policy_actor import PolicyClient
from align.cluster.reward_worker import RewardPool
from align.cluster.rollout_actor import RolloutClient
from align.cluster.weight_sync import WeightSync
from align.config.recipe import GrpoRecipe
from align.dataset.chat import set_template
from align.dataset.expression import compile_expression
from align.dataset.prompts import PromptSampler, load_eval_prompts, load_prompts
from align.model.hub import reach_hub
from align.model.load import load_tokenizer, resolve_model
from align.report.reporter import Reporter
from align.report.run_directory import RunDirectory
from align.report.timing import StageClock
from align.reward.terms import load_terms, probes, smoke
from align.train.evaluate import check_metrics, evaluate
from align.train.grpo import Parts, grpo
from align.train.interrupt import StopRequest
from align.types import Prompt, StepStats


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that can be checked without starting an engine."""

    prompts: list[Prompt]
    eval_prompts: dict[str, list[Prompt]]
    model: str
    chat_template: str
    probe: list[int]


def prepare(recipe: GrpoRecipe, *, file: Path) -> Prepared:
    """Resolve model, tokenizer, data and rewards.

    Raises:
        AlignError: whichever of them is wrong, naming file, key and remedy.
    """
    reach_hub(recipe.policy.path, file=file)
    tokenizer = load_tokenizer(recipe.policy)
    set_template(tokenizer, recipe.policy.chat_template)
    terms = load_terms(recipe.rewards, _predicates(file), file=file)
    prompts = load_prompts(recipe.data, tokenizer, recipe.grpo, file=file)
    smoke(terms, probes(_one_of_each_part(prompts), max_new_tokens=recipe.rollout.max_new_tokens))
    eval_prompts = load_eval_prompts(recipe.eval, tokenizer, file=file)
    check_metrics(recipe.eval, eval_prompts, file=file)
    return Prepared(
        prompts=prompts,
        eval_prompts=eval_prompts,
        model=resolve_model(recipe.policy.path),
        chat_template=str(tokenizer.chat_template),
        probe=_probe(prompts, recipe.sync.probe_tokens),
    )


def _probe(prompts: Sequence[Prompt], length: int) -> list[int]:
    """The first prompts' tokens, one after another, up to the wanted length."""
    tokens: list[int] = []
    for prompt in prompts:
        tokens += prompt.token_ids
        if len(tokens) >= length:
            break
    return tokens[:length]


def _predicates(file: Path) -> Any:
    return lambda text: compile_expression(text, file=file, key="rewards.terms")


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
        job.policy.save_model(run.final.resolve())
    return run.path


def _loop(recipe: GrpoRecipe, job: Job, store: CheckpointStore, start: int, stack: ExitStack) -> None:
    stop = stack.enter_context(StopRequest())
    last, evaluate_every = recipe.grpo.steps, recipe.eval.every
    for step in grpo(recipe, job.parts, start, job.after_step):
        if step == last or (evaluate_every and step % evaluate_every == 0):
            job.evaluate(step)
        if step == last or step % recipe.checkpoint.every == 0 or stop.requested:
            store.save(step, job.policy.save, job.state(step))
        if stop.requested and step < last:
            job.reporter.message(f"stopped after step {step}; continue with --resume")
            raise KeyboardInterrupt


@dataclass(frozen=True, slots=True)
class Job:
    """A started GRPO run."""

    recipe: GrpoRecipe
    prepared: Prepared
    parts: Parts
    sampler: PromptSampler
    policy: PolicyClient
    rollout: RolloutClient
    rewards: RewardPool
    sync: WeightSync
    reporter: Reporter
    file: Path

    def after_step(self, stats: StepStats) -> None:
        """Complete a step's metrics and report it."""
        stats.metrics |= self.rewards.metrics()
        stats.metrics["memory/engine_gib"] = self.rollout.memory_gib()
        self.reporter.step(stats)

    def evaluate(self, step: int) -> None:
        """Measure the held-out parts with the engine's present weights."""
        if self.prepared.eval_prompts:
            metrics, _ = evaluate(
                self.recipe.eval, self.prepared.eval_prompts, self.rollout.answer, file=self.file
            )
            self.reporter.evaluation(step, metrics)

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint keeps beside the policy."""
        return {"step": step, "sampler": self.sampler.state(), "version": self.sync.held}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue where the checkpoint ends."""
        checkpoint.verify()
        self.policy.load(checkpoint.path.resolve())
        state = checkpoint.state()
        self.sampler.restore(state["sampler"])
        self.sync.version = state["version"]  # pushed once more, under the same number


def start_job(
    recipe: GrpoRecipe,
    prepared: Prepared,
    run: RunDirectory,
    reporter: Reporter,
    stack: ExitStack,
    file: Path,
) -> Job:
    placement = stack.enter_context(cluster(recipe.cluster))
    rewards = RewardPool(
        recipe.rewards,
        seed=recipe.seed,
        compile_expression=_predicates(file),
        max_new_tokens=recipe.rollout.max_new_tokens,
        run_dir=run.path,
        recipe=file,
    )
    stack.callback(rewards.close)
    rewards.smoke(_one_of_each_part(prepared.prompts))
    reporter.message("starting the policy and the rollout engine")
    # One after the other: both need all cores.
    policy = PolicyClient.start(placement, recipe, prepared.chat_template)
    rollout = RolloutClient.start(placement, recipe, prepared.model)
    sampler = PromptSampler(prepared.prompts, recipe.data, seed=recipe.seed)
    sync = WeightSync(policy.actor, rollout.actor, recipe, prepared.probe)
    parts = Parts(sampler, policy, rollout, rewards, sync, StageClock())
    return Job(recipe, prepared, parts, sampler, policy, rollout, rewards, sync, reporter, file)


def _one_of_each_part(prompts: Sequence[Prompt]) -> list[Prompt]:
    return list({prompt.part: prompt for prompt in prompts}.values())
