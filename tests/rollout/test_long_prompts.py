"""More prompt tokens than vLLM computes in one step, with a seed for every sample.

Prompts cut into pieces would rewind a seeded generator, which vLLM cannot do on a CPU: it fails
with "CPU Generator does not use offset". Needs a model without MLA, which is never cut. Its tokenizer lies
elsewhere, and a prompt that is too long is refused.
"""

import pytest
import ray
from transformers import LlamaConfig

from align.cluster.rollout_group import RolloutGroup
from align.config.recipe import GrpoRecipe
from align.errors import EngineError
from align.types import Prompt

PROMPT_TOKENS, PROMPTS, GROUP = 1000, 6, 2
"""6,000 different prompt tokens: beyond the 4,096 of one engine step."""


@pytest.fixture
def llama(tmp_path):
    LlamaConfig(
        vocab_size=640,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=2048,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(tmp_path)
    return tmp_path


def test_seeded_samples_of_long_prompts(llama, placement, repo_root):
    recipe = GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "long",
            "policy": {
                "path": str(llama),
                "dtype": "float32",
                "tokenizer": str(repo_root / "recipes/quickstart/policy"),
            },
            "data": {"path": "none"},
            "rewards": {"terms": {"none": {"function": "none"}}},
            "grpo": {"group_size": GROUP, "prompts_per_step": PROMPTS, "max_prompt_tokens": PROMPT_TOKENS},
            "rollout": {"max_new_tokens": 8, "kv_cache_gib": 1},
        }
    )
    prompts = [
        Prompt(f"p/{i}", (), [10 + (7 * i + 3 * j + i * j) % 600 for j in range(PROMPT_TOKENS)])
        for i in range(PROMPTS)
    ]
    rollout = RolloutGroup.start(placement, recipe, str(llama))
    too_long = Prompt("p/long", (), [10] * 1200)
    with pytest.raises(EngineError, match=r"prompt p/long of 1200 tokens"):
        list(rollout.sample([*prompts[:2], too_long], GROUP, 1))
    runs = [  # of which nothing is left
        {group.prompt.id: [c.token_ids for c in group.completions] for group in each}
        for each in (rollout.sample(prompts, GROUP, 1), rollout.sample(prompts[::-1], GROUP, 1))
    ]
    ray.kill(rollout.actors[0])
    assert runs[0].keys() == {prompt.id for prompt in prompts}
    assert all(len(set(map(tuple, group))) == GROUP for group in runs[0].values())
    assert runs[0] == runs[1]
    assert sum(map(len, runs[0].values())) == PROMPTS * GROUP
