"""A reward model says the same on every back end: as transformers says of each row alone.

Measured, scores with a deviation near 1, mean |Δ| to transformers in fp32: torch and vLLM in fp32 below
1e-6, in bf16 0.02 for the MoE and as much for transformers' own bf16.
"""

import random
import statistics
from pathlib import Path

import pytest
import ray
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig

from align.model.score.scorer import TorchScorer, open_scorer
from align.rollout.pooling import PoolingScorer

TEXT = "What is the sum of 7 and 15 and how do you know it is 22 ?"
GROUP = 3
"""Answers to one prompt."""
POLICY = Path(__file__).parents[2] / "recipes/quickstart/policy"


@pytest.fixture(scope="module", params=["llama", "moe"])
def model(request, tmp_path_factory) -> str:
    """A tiny reward model with fresh weights whose scores differ by about 1."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    if request.param == "moe":
        config = AutoConfig.from_pretrained(POLICY)
        del config.moe_router_dtype  # as in a hub's model: serving must not depend on it
    else:
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=192,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=512,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    config.num_labels = 1
    config.pad_token_id = tokenizer.eos_token_id  # the awkward case: every row ends with padding
    torch.manual_seed(0)
    made = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    torch.nn.init.normal_(made.score.weight, std=128**-0.5)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@ray.remote
class Served:
    """vLLM in a process of its own, with the type of its weights as a choice."""

    def __init__(self, model: str, dtype: str) -> None:
        files = open_scorer(model)
        self.scorer = PoolingScorer(
            files.source, device="cpu", dtype=dtype, max_tokens=files.max_tokens, moe=files.moe
        )

    def score(self, rows: list[list[int]], prompts: list[str]) -> list[float]:
        return self.scorer.score(rows, prompts)


@pytest.fixture(params=["torch", "vllm"])
def serve(request, placement, model: str):
    """From dtype and rows to scores, twice: all at once, and before that one by one and backwards."""
    actors = []

    def scores(dtype: str, rows: list[list[int]]) -> list[list[float]]:
        if request.param == "torch":
            score = TorchScorer(open_scorer(model), device="cpu", dtype=dtype).score
        else:
            actors.append(Served.options(**placement.scorer(0).options()).remote(model, dtype))

            def score(rows: list[list[int]], prompts: list[str]) -> list[float]:
                return ray.get(actors[-1].score.remote(rows, prompts))

        prompts = [str(i // GROUP) for i in range(len(rows))]
        single = [score([row], ["p"])[0] for row in reversed(rows)]
        return [score(rows, prompts), single[::-1]]

    yield scores
    for actor in actors:
        ray.kill(actor)


def conversations(model: str) -> tuple[list[list[int]], list[float], list[float]]:
    """Rows as they are served, and what transformers says of the whole conversation, alone and unpadded,
    in fp32 and in bf16."""
    files = open_scorer(model)
    source = random.Random(0)
    words = TEXT.split()
    rows, whole = [], []
    for size in (1, 60, 5, 30, 90, 2, 14, 75, 41, 8, 22, 100):
        if len(rows) % GROUP == 0:
            prompt = ({"role": "user", "content": " ".join(source.choices(words, k=1 + size // 2))},)
        answer = " ".join(source.choices(words, k=size))
        rows.append(files.encode(prompt, answer))
        messages = [*prompt, {"role": "assistant", "content": answer}]
        whole.append(files.tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"])
    said = []
    for dtype in (torch.float32, torch.bfloat16):
        reference = AutoModelForSequenceClassification.from_pretrained(model, dtype=dtype).eval()
        with torch.no_grad():
            said.append([reference(torch.tensor([ids])).logits.item() for ids in whole])
    return rows, said[0], said[1]


def gaps(one: list[float], other: list[float]) -> list[float]:
    return [abs(a - b) for a, b in zip(one, other, strict=True)]


def test_fp32_is_exact(model: str, serve) -> None:
    rows, exact, _ = conversations(model)
    assert statistics.pstdev(exact) > 0.1
    for scores in serve("float32", rows):
        assert max(gaps(scores, exact)) < 5e-5


def test_bf16_is_as_near_as_transformers_own(model: str, serve) -> None:
    rows, exact, theirs = conversations(model)
    own = statistics.fmean(gaps(theirs, exact))
    for scores in serve("bfloat16", rows):
        assert 0 < statistics.fmean(gaps(scores, exact)) < 2 * own
