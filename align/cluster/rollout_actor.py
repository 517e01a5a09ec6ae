"""The rollout actor: vLLM in a process of its own, beside the trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ray

from align.cluster.memory import PeakMemory
from align.cluster.placement import Placement
from align.cluster.remote import wait
from align.config.recipe import GrpoRecipe
from align.model.load import load_config
from align.plan.residency import Part
from align.rollout.engine import Engine
from align.sync import arena
from align.sync.manifest import Manifest
from align.sync.transport import Place
from align.types import Completion, Group, Prompt

ENGINE = "rollout engine"
"""In messages."""


@ray.remote
class RolloutActor:
    """One engine. It starts without weights; the first push fills it."""

    def __init__(self, recipe: GrpoRecipe, model: str, device: str) -> None:
        self.memory = PeakMemory(device)
        self.place = Place(ray.get_runtime_context().get_node_id(), device)
        policy = recipe.policy
        router = getattr(load_config(policy), "moe_router_dtype", None)
        self.engine = Engine(
            model,
            recipe.rollout,
            dtype=recipe.rollout.dtype or policy.dtype,
            max_model_len=recipe.grpo.max_prompt_tokens + recipe.rollout.max_new_tokens,
            seed=recipe.seed,
            device=device,
            blank=True,
            sleeps=recipe.scheduled(device),
            routed_experts=recipe.grpo.engine_routing,
            trust_remote_code=policy.trust_remote_code,
            overrides={"moe_router_dtype": router} if router else None,  # the trainer's gate is in fp32
        )

    def ready(self) -> bool:
        """Answer once the engine is up."""
        return True

    def sample(
        self, prompts: list[Prompt], group_size: int, step: int, carried: Sequence[Group] = ()
    ) -> Iterator[Group]:
        yield from self.engine.sample(prompts, group_size, step, carried)

    def answer(self, prompts: list[Prompt], max_new_tokens: int, temperature: float) -> list[Completion]:
        return self.engine.answer(prompts, max_new_tokens=max_new_tokens, temperature=temperature)

    def where(self) -> Place:
        """Machine and device."""
        return self.place

    def needs_all(self) -> bool:
        """The next push must be a whole one."""
        return not self.engine.filled

    def load(self, manifest: Manifest) -> None:
        """Take over published weights."""
        self.engine.load_weights(manifest, manifest.version)

    def score(self, token_ids: list[int]) -> list[float]:
        return self.engine.score(token_ids)

    def decode_twice(self, token_ids: list[int]) -> tuple[list[float], list[float]]:
        return self.engine.decode_twice(token_ids)

    def sleep(self, part: Part) -> None:
        self.engine.sleep(part)
        if part == "engine":
            arena.release()
        self.memory.take_gib()

    def wake(self, part: Part) -> None:
        self.engine.wake(part)
        self.memory.take_gib()

    def take_peak_gib(self) -> float:
        return self.memory.take_gib()

    def memory_gib(self) -> float:
        return self.memory.largest_gib()


class RolloutClient:
    """The actor as the loop sees it (``align.types.Rollout``)."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    @classmethod
    def start(cls, placement: Placement, recipe: GrpoRecipe, model: str) -> RolloutClient:
        """Start the actor in the bundle and wait until its engine is up.

        Args:
            placement: shared with the trainer.
            recipe: the run.
            model: directory or hub id of configuration and tokenizer.
        """
        make: Any = RolloutActor.options(**placement.options())  # type: ignore[attr-defined]
        actor = make.remote(recipe, model, placement.device)
        wait(actor.ready.remote(), ENGINE)
        return cls(actor)

    def sample(
        self, prompts: Sequence[Prompt], group_size: int, step: int, carried: Sequence[Group] = ()
    ) -> Iterator[Group]:
        ask = self.actor.sample.options(num_returns="streaming")
        more = [list(carried)] if carried else []
        stream = ask.remote(list(prompts), group_size, step, *more)
        for reference in stream:
            yield wait(reference, ENGINE)

    def answer(self, prompts: Sequence[Prompt], max_new_tokens: int, temperature: float) -> list[Completion]:
        """One held-out completion per prompt."""
        return wait(self.actor.answer.remote(list(prompts), max_new_tokens, temperature), ENGINE)

    def sleep(self, part: Part) -> None:
        """Give back the memory of ``engine`` (its weights) or ``kv_cache``."""
        wait(self.actor.sleep.remote(part), ENGINE)

    def wake(self, part: Part) -> None:
        """Make it usable again."""
        wait(self.actor.wake.remote(part), ENGINE)

    def memory_gib(self) -> float:
        """Largest resident size of the engine's process so far, GiB."""
        return wait(self.actor.memory_gib.remote(), ENGINE)
