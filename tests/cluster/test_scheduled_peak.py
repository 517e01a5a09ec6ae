"""Real trainer, real engine: a step needs less memory when each stage has only what it uses."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import ray

from align.algo.assemble import assemble
from align.cluster.memory import together
from align.cluster.policy_group import PolicyGroup
from align.cluster.residency import Residency
from align.cluster.rollout_group import RolloutGroup
from align.cluster.weight_sync import WeightSync
from align.config.recipe import GrpoRecipe
from align.model.files.load import load_tokenizer
from align.plan.residency import Household
from align.types import Prompt

CACHE_GIB = 1.0
COPIES = 16
"""Of the sampled groups in a training batch."""


def recipe(policy, residency: str) -> GrpoRecipe:
    return GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "peak",
            "policy": {"path": str(policy), "init": "random", "dtype": "float32"},
            "data": {"path": "none"},
            "rewards": {"terms": {"none": {"function": "none"}}},
            # One pass of everything, so that training needs memory that the other stages do not.
            "grpo": {
                "group_size": 4,
                "prompts_per_step": 4,
                "max_prompt_tokens": 64,
                "micro_batch_tokens": 1 << 20,
            },
            "rollout": {"max_new_tokens": 32, "kv_cache_gib": CACHE_GIB},
            "cluster": {"device": "cpu", "residency": residency},
        }
    )


def fill_cache(actor) -> None:
    """As many long completions as the cache was made for would."""

    def fill(worker) -> None:
        for each in worker.model_runner.kv_caches:
            each.fill_(1.0)

    actor.engine.llm.collective_rpc(fill)


def shortage(actor) -> None:
    """As if the machine had no memory left, so that the trainer gives back what it freed."""
    psutil.virtual_memory = lambda: SimpleNamespace(available=0)


class Run:
    def __init__(self, placement, folder) -> None:
        self.recipe = recipe(folder, "resident")
        self.rollout = RolloutGroup.spawn(placement, self.recipe)
        self.policy = PolicyGroup.start(placement, self.recipe, None)
        self.rollout.open(str(folder))
        tokens = load_tokenizer(self.recipe.policy)("What is 7 + 15 - 4?")["input_ids"]
        self.prompts = [Prompt(f"p/{i}", (), tokens[: 3 + i]) for i in range(4)]

    def residency(self, choice: str) -> Residency:
        household = Household.of(recipe("x", choice), "cpu")
        movers = {"engine": self.rollout, "kv_cache": self.rollout}
        return Residency(household, movers, household.present, lambda: together(self.peaks(), "cpu"))

    def peaks(self) -> list[float]:
        return [*self.policy.peaks_gib(), *self.rollout.peaks_gib()]

    def steps(self, choice: str, count: int) -> dict[str, float]:
        """Peaks of the last step."""
        ray.get(self.policy.actors[0].__ray_call__.remote(shortage))
        stages = self.residency(choice)
        sync = WeightSync(self.policy, self.rollout, self.recipe, self.prompts[3].token_ids, stages.want)
        sync.push()
        for step in range(count):
            stages.metrics()
            with stages.stage("rollout"):
                groups = list(self.rollout.sample(self.prompts, 4, step))
                ray.get(self.rollout.actors[0].__ray_call__.remote(fill_cache))
            many = [
                replace(group, prompt=replace(group.prompt, id=f"{i}/{group.prompt.id}"))
                for i in range(COPIES)
                for group in groups
            ]
            (batch,) = assemble(many, [1.0, -1.0] * 8 * COPIES, self.recipe.grpo, 32)
            with stages.stage("reference"):
                batch.ref_logprobs = self.policy.ref_logprobs(batch)
            with stages.stage("update"):
                self.policy.update(batch)
            with stages.stage("sync"):
                assert sync.push().probe_max < 1e-3
            stages.take()
        return stages.metrics()


@pytest.mark.slow
def test_peak_with_scheduling_is_below_the_peak_without(placement, repo_root):
    run = Run(placement, repo_root / "recipes/quickstart/policy")
    resident = run.steps("resident", 2)
    scheduled = run.steps("scheduled", 2)
    for actor in (*run.policy.actors, *run.rollout.actors):
        ray.kill(actor)
    assert (
        set(resident)
        == set(scheduled)
        == {f"memory/{s}_gib" for s in ("rollout", "reference", "update", "sync")}
    )
    assert max(scheduled.values()) < max(resident.values()) - 0.5 * CACHE_GIB, (scheduled, resident)
    assert scheduled["memory/update_gib"] < resident["memory/update_gib"] - 0.9 * CACHE_GIB
