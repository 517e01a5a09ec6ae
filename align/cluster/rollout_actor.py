"""The rollout actor: vLLM in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import ray

from align.cluster.meeting import use_interface
from align.cluster.memory import PeakMemory
from align.cluster.policy_actor import place_of
from align.cluster.remote import opening
from align.config.recipe import GrpoRecipe
from align.model.files.load import load_config, resolve_model
from align.plan.residency import Part
from align.rollout.engine import Engine
from align.rollout.feed import Abandoned, Feed, Work
from align.rollout.start import import_engine
from align.sync import arena
from align.sync.manifest import Manifest
from align.sync.transport import Place
from align.types import Completion, Group, Prompt

ENGINE = "rollout engine"
"""In messages."""
CALLS = {"feed": 1}
"""Concurrency groups: an engine takes new work while it samples. Everything else goes one after the other in
one thread."""


@ray.remote(concurrency_groups=CALLS)
class RolloutActor:
    """One engine. It starts without weights; the first push fills it."""

    def __init__(self) -> None:
        self.feeds: dict[int, Feed] = {}

    def get_ready(self, recipe: GrpoRecipe, device: str) -> None:
        """Import what the engine is made of: seconds that need no device and one core."""
        import_engine(recipe.rollout, device)

    def open(self, recipe: GrpoRecipe, model: str, device: str, context: int) -> None:
        """Start the engine.

        Args:
            recipe: the run.
            model: directory or hub id of configuration and, unless the recipe names another, tokenizer.
            device: ``cpu`` or ``cuda``.
            context: longest prompt and answer together, tokens.

        Raises:
            ModelError: model or tokenizer cannot be read.
            EngineError: vLLM refuses the model or the settings.
        """
        use_interface(ray.util.get_node_ip_address())
        self.memory = PeakMemory(device)
        self.place = place_of(device, recipe.rollout.tensor_parallel)
        policy = recipe.policy
        with opening("the rollout engine's model", file=model, key="policy.path"):
            router = getattr(load_config(policy), "moe_router_dtype", None)
            self.engine = Engine(
                model,
                recipe.rollout,
                dtype=recipe.rollout.dtype or policy.dtype,
                max_model_len=context,
                seed=recipe.seed,
                device=device,
                tokenizer=resolve_model(policy.tokenizer) if policy.tokenizer else None,
                blank=True,
                sleeps=recipe.scheduled(device),
                routed_experts=recipe.grpo.engine_routing,
                trust_remote_code=policy.trust_remote_code,
                overrides={"moe_router_dtype": router} if router else None,  # the trainer's gate is in fp32
            )

    def serve(self, call: int, group_size: int, step: int) -> Iterator[Group]:
        """Sample what :meth:`feed` brings under the same number, until it says that this was all."""
        try:
            yield from self.engine.serve(self._feed(call), group_size, step)
        except Abandoned:
            return
        finally:
            del self.feeds[call]

    @ray.method(concurrency_group="feed")
    def feed(self, call: int, work: Sequence[Work], last: bool = False) -> None:
        """More work for :meth:`serve`, begun or not; or no more, and what is left is dropped."""
        feed = self._feed(call)
        if work:
            feed.put(work)
        if last:
            feed.abandon()

    def _feed(self, call: int) -> Feed:
        return self.feeds.setdefault(call, Feed())

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
