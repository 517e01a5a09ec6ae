"""Reward models behind actors on a real Ray: outcomes, turns, death, and the bank around them."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig

from align.cluster import scorer_actor
from align.cluster.placement import Placement
from align.cluster.reward_pool import RewardPool
from align.cluster.scorer_actor import ScorerClient
from align.config.rewards import RewardsConfig
from align.errors import EngineError, ModelError, RewardError
from align.reward.contract import Sample
from align.types import Completion, Group, Prompt

ROOT = Path(__file__).parents[2]
POSITIONS = 96
MakeModel = Callable[..., str]


@pytest.fixture(scope="module")
def placement(placement: Placement) -> Placement:
    return placement.with_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Make a tiny reward model; ``edit`` changes its tensors."""

    def make(seed: int = 0, edit: Callable[[dict[str, torch.Tensor]], None] | None = None) -> str:
        folder = tmp_path_factory.mktemp("model")
        tokenizer = AutoTokenizer.from_pretrained(ROOT / "recipes/quickstart/policy")
        tokenizer.chat_template = (ROOT / "align/dataset/templates/deepseek_v2.jinja").read_text()
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=POSITIONS,
            num_labels=1,
            pad_token_id=tokenizer.bos_token_id,
        )
        torch.manual_seed(seed)
        made = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        torch.nn.init.normal_(made.score.weight)
        made.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if edit:
            weights = load_file(folder / "model.safetensors")
            edit(weights)
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return str(folder)

    return make


Start = Callable[..., ScorerClient]


@pytest.fixture(scope="module")
def serve(placement: Placement) -> Start:
    def start(path: str, name: str = "helpful") -> ScorerClient:
        return ScorerClient.start(placement.scorer(0), name, path, key=f"rewards.terms.{name}.model")

    return start


@pytest.fixture(scope="module")
def helpful(serve: Start, model: MakeModel) -> tuple[str, ScorerClient]:
    """A reward model's directory and its scorer."""
    path = model(seed=1)
    return path, serve(path)


@pytest.fixture(scope="module")
def broken(serve: Start, model: MakeModel) -> ScorerClient:
    """All its scores are NaN."""

    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights["score.weight"][0, 0] = math.nan

    return serve(model(edit=spoil), "broken")


def sample(text: str, role: str = "user") -> Sample:
    return Sample(prompt=({"role": role, "content": "What is 7 + 15?"},), completion=text)


def expected(path: str, text: str) -> float:
    """transformers' bf16 score of the whole conversation."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    messages = [*sample(text).prompt, {"role": "assistant", "content": text}]
    ids = tokenizer.apply_chat_template(messages, return_dict=True, return_tensors="pt")["input_ids"]
    reference = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        return reference(ids).logits.item()


def test_scores_in_order_and_failures_typed(helpful: tuple[str, ScorerClient]) -> None:
    path, client = helpful
    texts = ["22.", "I do not know. " * 3, "7 + 15 = 22. Answer: 22"]
    outcomes = client(
        [sample(texts[0]), sample("1 " * 200), sample(texts[1]), sample("x", role="judge"), sample(texts[2])]
    )
    assert [outcome.kind for outcome in outcomes] == ["ok", "error", "ok", "error", "ok"]
    scores = [outcome.value for outcome in outcomes if outcome.value is not None]
    assert scores == pytest.approx([expected(path, text) for text in texts], abs=0.1)
    assert max(scores) - min(scores) > 0.3  # the tolerance could tell them apart
    long, refused = outcomes[1], outcomes[3]
    assert long.value is None
    assert f"the reward model reads at most {POSITIONS}" in long.detail
    assert refused.value is None
    assert "unknown role judge" in refused.detail
    assert all(outcome.seconds > 0 for outcome in outcomes)
    assert client([]) == []


def test_a_score_that_is_no_number_is_an_error(broken: ScorerClient) -> None:
    (outcome,) = broken([sample("22.")])
    assert (outcome.kind, outcome.value) == ("error", None)
    assert outcome.detail == "the reward model gave nan"


def test_the_same_after_sleep_and_wake(helpful: tuple[str, ScorerClient]) -> None:
    _, client = helpful
    before = client([sample("22.")])[0].value
    client.sleep()
    client.sleep()
    client.wake()
    assert client([sample("22.")])[0].value == before
    assert 0.1 < client.memory_gib() < 4


def test_a_conversation_is_cut_as_in_training(serve: Start, model: MakeModel) -> None:
    path, limit = model(seed=1), 24
    (Path(path) / "calibration.json").write_text(json.dumps({"max_length": limit}))
    client = serve(path)
    texts = ["22.", "I do not know, but I can count. " * 2, "1 2 " * 30]
    outcomes = client([sample(text) for text in texts])
    assert [outcome.parts for outcome in outcomes] == [{"cut": 0.0}, {"cut": 1.0}, {"cut": 1.0}]
    tokenizer = AutoTokenizer.from_pretrained(path)
    reference = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.bfloat16).eval()
    for text, outcome in zip(texts[1:], outcomes[1:], strict=True):
        messages = [*sample(text).prompt, {"role": "assistant", "content": text}]
        whole = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
        with torch.no_grad():  # the begin-of-sequence token and the last ones
            score = reference(torch.tensor([[whole[0], *whole[1 - limit :]]])).logits.item()
        assert outcome.value == pytest.approx(score, abs=0.1)
    assert outcomes[0].value == pytest.approx(expected(path, "22."), abs=0.1)


def test_a_model_that_hangs_ends_the_call(
    serve: Start, model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(model(seed=4), "stuck")
    pid = ray.get(client.actor.__ray_call__.remote(lambda actor: os.getpid()))
    monkeypatch.setattr(scorer_actor, "WAKE_SECONDS", 1)
    client.timeout = 0.5
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(EngineError, match="reward model 'stuck' process did not answer within 2 s") as caught:
        client([sample("22.")] * 2)
    assert "--resume" in (caught.value.remedy or "")
    client.timeout = 60
    with pytest.raises(EngineError, match="died"):
        client([sample("22.")])


def test_what_is_wrong_with_a_model_comes_through(serve: Start) -> None:
    with pytest.raises(ModelError) as caught:
        serve("./nowhere")
    assert caught.value.message == "no such model directory"
    assert caught.value.key == "rewards.terms.helpful.model"


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Callable[..., RewardPool]]:
    """A bank of the given reward models and a rule."""
    pools = []

    def build(scorers: dict[str, ScorerClient], **settings: Any) -> RewardPool:
        rule = tmp_path / "short.py"
        rule.write_text("def short(sample): return float(len(sample.completion) < 5)\n")
        terms: dict[str, Any] = {name: {"model": name, "weight": 2.0} for name in scorers}
        terms["safety"]["where"] = "harm"
        terms["rule"] = {"function": str(rule)}
        made = RewardPool(
            RewardsConfig.model_validate({"terms": terms, **settings}),
            seed=0,
            compile_expression=lambda text: lambda columns: text in columns,
            max_new_tokens=64,
            run_dir=tmp_path / "run",
            scorers=scorers,
        )
        pools.append(made)
        return made

    yield build
    for pool in pools:
        pool.close()


def group(number: int, texts: list[str], **columns: Any) -> Group:
    prompt = Prompt(f"sums/{number}", sample("").prompt, [1], columns, part="sums")
    completions = [
        Completion(prompt.id, index, [1, 2], [0.0, 0.0], text, "stop", 1, seed=0)
        for index, text in enumerate(texts)
    ]
    return Group(prompt, completions)


def test_a_broken_model_fails_the_smoke_call(
    bank: Callable[..., RewardPool], helpful: tuple[str, ScorerClient], broken: ScorerClient
) -> None:
    pool = bank({"helpful": helpful[1], "safety": broken})
    with pytest.raises(RewardError, match="'safety' failed its start-up call"):
        pool.smoke([group(0, [], harm=True).prompt])


def until_it_dies(client: ScorerClient) -> None:
    """A killed actor may answer for a moment."""
    while True:
        ray.get(client.actor.memory_gib.remote())


def test_two_models_and_a_rule_take_turns_in_the_bank_until_one_dies(
    bank: Callable[..., RewardPool], helpful: tuple[str, ScorerClient], serve: Start, model: MakeModel
) -> None:
    path = model(seed=2)
    safety = serve(path, "safety")
    pool = bank({"helpful": helpful[1], "safety": safety}, error_budget=1.0)
    pool.smoke([group(0, []).prompt])
    pool.submit(group(1, ["22.", "I do not know."], harm=True))
    pool.submit(group(2, ["22.", "1 " * 200]))
    scores = pool.collect()
    first, second = expected(helpful[0], "22."), expected(path, "22.")
    assert scores[0].reward == pytest.approx(2 * first + 2 * second + 1, abs=0.4)
    assert set(scores[2].terms) == {"helpful", "rule"}
    assert scores[2].reward == pytest.approx(2 * first + 1, abs=0.2)
    assert scores[3].reward is None
    assert scores[3].terms["helpful"].kind == "error"

    ray.kill(safety.actor)
    with pytest.raises(ray.exceptions.RayActorError):
        until_it_dies(safety)
    pool.submit(group(3, ["22."], harm=True))
    with pytest.raises(EngineError, match="reward model 'safety' process died") as caught:
        pool.collect()
    assert "--resume" in (caught.value.remedy or "")
