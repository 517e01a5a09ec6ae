"""Trainer and engine say the same of the same tokens, before and after a weight push.

Bounds: measured on 16 × 128 tokens as mean / largest |Δ log-probability|: fp32 0 / 0 for the MoE and
4e-6 / 4e-5 for the dense model, bf16 0.033 / 0.39. The tests allow a few times that.
"""

import math
from pathlib import Path

import pytest
import ray

from align.algo.assemble import assemble
from align.cluster.policy_group import PolicyGroup
from align.cluster.rollout_group import RolloutGroup
from align.cluster.weight_sync import WeightSync
from align.config.recipe import GrpoRecipe
from align.model.files.load import load_tokenizer
from align.types import Prompt

ROOT = Path(__file__).parents[2]
TINY = {"path": str(ROOT / "recipes/quickstart/policy"), "init": "random", "dtype": "float32"}
TEXT = "What is 7 + 15 - 4?"


class Pair:
    """A trainer and an engine of one recipe, and what both say of freshly sampled tokens."""

    def __init__(self, placement, policy: dict, lr: float, *, compile: bool = False) -> None:
        self.recipe = GrpoRecipe.model_validate(
            {
                "kind": "grpo",
                "name": "parity",
                "policy": policy,
                "data": {"path": "none"},
                "rewards": {"terms": {"none": {"function": "none"}}},
                "grpo": {"group_size": 4, "prompts_per_step": 4, "max_prompt_tokens": 64},
                "optim": {"lr": lr},
                "rollout": {"max_new_tokens": 48, "temperature": 0.9, "kv_cache_gib": 1, "compile": compile},
            }
        )
        self.rollout = RolloutGroup.spawn(placement, self.recipe)
        self.policy = PolicyGroup.start(placement, self.recipe, None)
        self.rollout.open(policy["path"])
        tokenizer = load_tokenizer(self.recipe.policy)
        tokens = tokenizer(TEXT)["input_ids"]
        self.prompts = [Prompt(f"p/{i}", (), tokens[: 3 + i]) for i in range(4)]
        self.long = Prompt("p/long", (), (tokens[::-1] * 8)[:45])  # begins otherwise than the probe
        self.sync = WeightSync(self.policy, self.rollout, self.recipe, (tokens * 8)[:64])
        self.step = 0

    def sample(self):
        """One batch of fresh completions with made-up advantages."""
        self.step += 1
        groups = list(self.rollout.sample(self.prompts, 4, self.step))
        (batch,) = assemble(groups, [1.0, -1.0] * 8, self.recipe.grpo, 48)
        return batch

    def difference(self, batch) -> tuple[float, float]:
        """Mean and largest |Δ| between the engine's logprobs and the trainer's present ones."""
        trainer = self.policy.logprobs(batch)
        gaps = [
            abs(a - b)
            for mine, theirs in zip(trainer, batch.rollout_logprobs, strict=True)
            for a, b in zip(mine, theirs, strict=True)
        ]
        return math.fsum(gaps) / len(gaps), max(gaps)

    def update(self, batch) -> None:
        batch.ref_logprobs = self.policy.ref_logprobs(batch)
        self.policy.update(batch)

    def close(self) -> None:
        for actor in (self.policy.actors[0], self.rollout.actors[0]):
            ray.kill(actor)


@pytest.fixture(scope="module")
def moe(placement):
    """The quickstart's policy in fp32."""
    made = Pair(placement, TINY, lr=1e-2)
    yield made
    made.close()


@pytest.fixture
def pair(placement):
    made = []

    def make(policy: dict, lr: float, **settings) -> Pair:
        made.append(Pair(placement, policy, lr, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def check(pair: Pair, mean_bound: float, max_bound: float) -> None:
    for _ in range(2):
        report = pair.sync.push()
        batch = pair.sample()
        mean, largest = pair.difference(batch)
        assert mean <= mean_bound
        assert largest <= max_bound
        assert report.probe_mean <= mean_bound
        pair.update(batch)
    # The comparison must be able to fail: an update that was not pushed shows up.
    stale, _ = pair.difference(pair.sample())
    pair.sync.push()
    fresh, _ = pair.difference(pair.sample())
    assert fresh <= mean_bound < stale / 2, (fresh, stale)


def test_moe_fp32(moe):
    check(moe, 1e-5, 1e-3)


def test_per_sample_seeds_repeat_and_differ(moe):
    moe.sync.push()
    first = list(moe.rollout.sample(moe.prompts, 4, 7))
    again = list(moe.rollout.sample(moe.prompts[::-1], 4, 7))
    other = list(moe.rollout.sample(moe.prompts, 4, 8))
    texts = [
        {g.prompt.id: [c.token_ids for c in g.completions] for g in each} for each in (first, again, other)
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
    assert len({tuple(tokens) for tokens in texts[0]["p/0"]}) == 4


def test_moe_lora(pair):
    check(pair(TINY | {"lora": {"rank": 8, "alpha": 64}}, lr=5e-2), 1e-5, 1e-3)


def test_dense_bf16(pair, smollm2):
    # The trainer's compiled layers are compared in tests/model/test_compiled.py, and below.
    both = pair({"path": str(smollm2), "dtype": "bfloat16", "compile": False}, lr=1e-3)
    check(both, 0.07, 1.2)
    assert tokens_from_the_cache(both) == 3 * 32  # of 45, what three of four share with the first in blocks


@pytest.mark.slow
def test_dense_bf16_compiled(pair, smollm2):
    """Weights that are pushed reach a compiled engine too; the trainer's layers are compiled as well."""
    check(pair({"path": str(smollm2), "dtype": "bfloat16"}, lr=1e-3, compile=True), 0.07, 1.2)


def tokens_from_the_cache(pair: Pair) -> int:
    """Tokens of a group's prompt that are not computed again."""

    def watch(actor):
        manager = actor.engine.llm.llm_engine.engine_core.engine_core.scheduler.kv_cache_manager
        find, actor.found = manager.get_computed_blocks, []

        def get_computed_blocks(request):
            answer = find(request)
            actor.found.append(answer[1])
            return answer

        manager.get_computed_blocks = get_computed_blocks

    ray.get(pair.rollout.actors[0].__ray_call__.remote(watch))
    pair.sync.push()  # drops what is cached
    ray.get(pair.rollout.actors[0].__ray_call__.remote(lambda actor: actor.found.clear()))
    list(pair.rollout.sample([pair.long], 4, 9))
    return ray.get(pair.rollout.actors[0].__ray_call__.remote(lambda actor: sum(actor.found)))
