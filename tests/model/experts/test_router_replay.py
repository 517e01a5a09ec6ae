"""Replayed routers against a plain model whose routers are computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, MixtralConfig

from align.algo.reduce import token_weights
from align.config.policy import LoraConfig
from align.config.recipe import GrpoRecipe
from align.errors import EngineError, RecipeError
from align.model.attention.shared_prefix import pack, use_shared_prefix
from align.model.experts.packed_experts import pack_experts, unpack_experts
from align.model.experts.router_replay import RouterReplay, check_replay
from align.model.experts.routers import find_routers
from align.model.files.lora import add_lora
from align.model.logprobs import completion_logprobs
from align.model.policy import PolicyModel
from align.types import TrainBatch

PROMPTS = [[5, 6, 7]] * 3 + [[8]] * 2 + [[9, 10, 11, 12]]
COMPLETIONS = [[20, 21], [30, 31, 32, 33, 1], [40], [41], [50], [51, 52, 53]]
FED = sum(len(row) for row in COMPLETIONS) - len(COMPLETIONS) + 3 + 1 + 4
POLICY = Path(__file__).parents[3] / "recipes/quickstart/policy"


def batch_of(routed: list[Any] | None = None) -> TrainBatch:
    return TrainBatch(
        prompt_ids=["a", "a", "a", "b", "b", "c"],
        prompt_tokens=PROMPTS,
        completion_tokens=COMPLETIONS,
        rollout_logprobs=[[0.0] * len(row) for row in COMPLETIONS],
        advantages=[1.0, -1.0, 0.5, 1.0, -1.0, 0.5],
        token_weights=token_weights([len(row) for row in COMPLETIONS], "sequence_mean", 16),
        routed_experts=routed,
    )


def forward(model: Any) -> torch.Tensor:
    return completion_logprobs(model, PROMPTS, COMPLETIONS).logprobs_BT


def gradients(model: Any, logprobs: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    (logprobs.sum(-1) * torch.tensor([0.3, -1.0, 2.0, 0.5, -0.7, 1.1])).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def other_experts(selected_SLK: torch.Tensor) -> torch.Tensor:
    """Each token to the next two of four experts: never the same set twice in a row."""
    return (selected_SLK + 1) % 4


def own_experts(model: Any, router: RouterReplay) -> torch.Tensor:
    with router.record() as selected, torch.no_grad():
        forward(model)
    return torch.stack(selected, 1)


@pytest.fixture
def moe(tiny_moe: Any) -> Any:
    use_shared_prefix(tiny_moe)
    return tiny_moe


# The layout -----------------------------------------------------------------------------------------


def test_packed_experts_stand_where_their_tokens_are() -> None:
    """With token ids for experts, packing must give the very ids that the row feeds."""
    routed = [
        np.array((prompt + completion)[:-1])[:, None, None]
        for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    packed, differing = pack_experts(batch_of(), routed, (1, 1), 99)
    assert packed[:, 0, 0].tolist() == pack(PROMPTS, COMPLETIONS, "cpu").input_ids[0].tolist()
    assert differing == 0
    for found, given in zip(unpack_experts(batch_of(), packed), routed, strict=True):
        assert np.array_equal(found, given)


def test_the_first_completion_speaks_for_the_prompt_and_others_are_counted() -> None:
    routed = [
        np.zeros((len(p) + len(c) - 1, 2, 2), np.uint8) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    for each in routed:
        each[..., 1] = 1
    routed[1][1, 0] = [1, 0]  # the same set in another order
    routed[2][0, 1] = [0, 3]
    routed[2][2] = [[2, 3], [0, 3]]  # one token, two layers
    routed[3][0, 0] = [3, 2]  # the first of its prompt
    packed, differing = pack_experts(batch_of(), routed, (2, 2), 4)
    assert differing == 2 + 1
    assert packed[8, 0].tolist() == [3, 2]
    assert (packed[:3] == [0, 1]).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows.__setitem__(1, rows[1][:-1]), r"of 'a' cover \(6, 2, 2\).*needs \(7, 2, 2\)"),
        (lambda rows: rows.__setitem__(4, rows[4][:, :1]), r"of 'b' cover \(1, 1, 2\)"),
        (lambda rows: rows[5].__setitem__((0, 0, 0), 4), "go up to 4, the policy has 4"),
        (
            lambda rows: rows[0].__setitem__((2, 1, 1), 0),
            r"1 of 15 tokens .* to \[\[0, 1\], \[0, 0\]\]",
        ),
        (
            lambda rows: [row.fill(0) for row in rows],
            "15 of 15 tokens .* one expert several times",
        ),
        (
            lambda rows: [row.fill(3) for row in rows],
            "15 of 15 tokens .* one expert several times",
        ),
    ],
)
def test_incomplete_coverage_is_one_error(spoil: Any, message: str) -> None:
    routed = [
        np.zeros((len(p) + len(c) - 1, 2, 2), np.uint8) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    for each in routed:
        each[..., 1] = 1
    spoil(routed)
    with pytest.raises(EngineError, match=message):
        pack_experts(batch_of(), routed, (2, 2), 4)


# The routers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [False, True])
def test_its_own_choice_replayed_changes_nothing(moe: Any, lora: bool) -> None:
    if lora:
        moe = add_lora(moe, LoraConfig(rank=2))
    before = forward(moe)
    expected = gradients(moe, before)
    router = RouterReplay(moe)
    assert (router.layers, router.shape, router.experts) == ([1, 2], (2, 2), 4)
    experts = own_experts(moe, router)
    assert experts.shape == (FED, 2, 2)
    with router.replay(experts.flip(-1)) as agreeing:  # the order inside a set is free
        torch.testing.assert_close(forward(moe), before, atol=1e-6, rtol=0)
    assert [int(each) for each in agreeing] == [FED, FED]
    with router.replay(experts):
        replayed = forward(moe)
        found = gradients(moe, replayed)
    assert torch.equal(replayed, before)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name
    assert torch.equal(forward(moe), before)  # nothing is left behind


def test_other_experts_equal_a_router_computed_by_hand(moe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    router = RouterReplay(moe)
    given = other_experts(own_experts(moe, router))
    plain = forward(moe)
    with router.replay(given) as agreeing:
        replayed = forward(moe)
        found = gradients(moe, replayed)
    assert (replayed - plain).abs().max() > 1e-3
    assert int(agreeing[0]) == 0  # sets of neighbours shifted by one are never equal

    for place, gate in enumerate(find_routers(moe)):

        def by_hand(hidden: torch.Tensor, gate: Any = gate, place: int = place) -> Any:
            logits = hidden.view(-1, 64) @ gate.weight.T
            weights = torch.stack(
                [row.softmax(-1)[k] for row, k in zip(logits, given[:, place], strict=True)]
            )
            return logits, weights, given[:, place]

        monkeypatch.setattr(gate, "forward", by_hand)
    reference = forward(moe)
    torch.testing.assert_close(replayed, reference, atol=1e-5, rtol=0)
    expected = gradients(moe, reference)
    assert expected["model.layers.1.mlp.gate.weight"].abs().max() > 0
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4)


def test_gradient_checkpointing_replays_in_its_second_pass(moe: Any) -> None:
    moe.train()
    router = RouterReplay(moe)
    given = other_experts(own_experts(moe, router))
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            moe.gradient_checkpointing_enable({"use_reentrant": False})
        with router.replay(given) as agreeing:
            found.append(gradients(moe, forward(moe)))
            assert len(agreeing) == 2
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-5)


def test_the_gate_computes_in_fp32_whatever_the_model_is(moe: Any) -> None:
    moe.bfloat16()
    seen = []
    for gate in find_routers(moe):
        gate.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], module, output[0])))
    with torch.no_grad():
        forward(moe)
    assert len(seen) == 2
    for hidden, gate, logits in seen:
        exact = hidden.view(-1, 64).double() @ gate.weight.double().T
        assert logits.dtype == torch.float32
        assert (logits - exact).abs().max() < 1e-6
        in_bf16 = hidden.view(-1, 64) @ gate.weight.T
        assert (in_bf16 - exact).abs().max() > 1e-5


def test_experts_outside_the_allowed_groups_keep_their_weight(deepseek_v2: Any) -> None:
    torch.manual_seed(0)
    settings = deepseek_v2(
        vocab_size=97, hidden_size=64, num_hidden_layers=1, first_k_dense_replace=0,
        topk_method="group_limited_greedy", n_group=2, routed_scaling_factor=4.0,
    )  # fmt: skip
    config = AutoConfig.for_model(**settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    router, gate = RouterReplay(model), find_routers(model)[0]
    gate.weight.data.normal_()
    hidden = torch.randn(3, 64)
    _, _, own = gate(hidden)
    other = 3 - own  # the other group: experts {0, 1} and {2, 3}
    with router.replay(other[:, None]):
        logits, weights, chosen = gate(hidden)
    assert torch.equal(chosen, other)
    torch.testing.assert_close(weights, 4 * logits.softmax(-1).gather(-1, other))
    assert weights.min() > 0


@pytest.mark.parametrize(
    ("config", "message"),
    [(LlamaConfig(), "llama policies have no router"), (MixtralConfig(), "not of mixtral")],
)
def test_what_cannot_be_replayed_is_refused(config: Any, message: str) -> None:
    check_replay(config, "off")
    for replay in ("compare", "rollout", "trainer"):
        with pytest.raises(RecipeError, match=message) as error:
            check_replay(config, replay)
        assert error.value.key == "grpo.replay"


# The policy -----------------------------------------------------------------------------------------


def policy_of(replay: str, **grpo: Any) -> PolicyModel:
    recipe = GrpoRecipe.model_validate(
        {
            "kind": "grpo",
            "name": "replay",
            "policy": {"path": str(POLICY), "init": "random", "dtype": "float32"},
            "data": {"path": "none"},
            "rewards": {"terms": {"none": {"function": "none"}}},
            "grpo": {"beta": 0.0, "replay": replay, "micro_batch_tokens": 12} | grpo,
            "optim": {"lr": 1e-2},
        }
    )
    return PolicyModel(recipe, device="cpu")


def random_experts() -> list[np.ndarray]:
    """Two of the first six of eight, per token and layer; completions of a prompt agree on it."""
    draw = np.random.default_rng(0)
    rows = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        first = draw.integers(0, 6, (len(prompt) + len(completion) - 1, 2, 1))
        both = np.concatenate([first, (first + draw.integers(1, 6, first.shape)) % 6], -1).astype(np.uint8)
        if rows and prompt == PROMPTS[len(rows) - 1]:
            both[: len(prompt)] = rows[-1][: len(prompt)]
        rows.append(both)
    return rows


def test_rollout_replay_through_the_policy_in_micro_batches() -> None:
    policy = policy_of("rollout")
    routed = random_experts()
    batch = batch_of(routed)
    assert len(policy._micro_batches(batch)) > 1
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    scored = policy.logprobs(batch)

    plain = policy_of("off")
    router = RouterReplay(plain.model)
    experts, _ = pack_experts(batch, routed, router.shape, router.experts)
    with router.replay(torch.from_numpy(experts)) as agreeing, torch.no_grad():
        expected = forward(plain.model)
    assert experts.shape == (FED, 2, 2)
    for row, values in enumerate(scored):
        assert values == pytest.approx(expected[row, : len(values)].tolist(), abs=1e-5)

    metrics = policy.update(batch)
    for layer, each in zip((1, 2), agreeing, strict=True):
        assert metrics[f"router/agreement_layer_{layer}"] == pytest.approx(int(each) / FED, abs=0.1)
    both = [metrics["router/agreement_layer_1"], metrics["router/agreement_layer_2"]]
    assert metrics["router/agreement"] == pytest.approx(sum(both) / 2)
    assert metrics["router/prompt_disagreement"] == 0
    # Experts that no token was sent to get no gradient, so Adam leaves them where they were.
    for layer in (1, 2):
        name = f"model.layers.{layer}.mlp.experts.down_proj"
        moved = (dict(policy.model.named_parameters())[name] - before[name]).abs().amax((1, 2)) > 0
        assert moved[:6].any()
        assert not moved[6:].any()


def test_comparing_counts_and_leaves_every_token_where_it_goes() -> None:
    policy, plain = policy_of("compare"), policy_of("off")
    routed = random_experts()
    batch = batch_of(routed)
    assert policy.logprobs(batch) == plain.logprobs(batch)

    router = RouterReplay(plain.model)
    own = own_experts(plain.model, router)
    given, _ = pack_experts(batch, routed, router.shape, router.experts)
    same = (own.sort(-1).values == torch.from_numpy(given).sort(-1).values).all(-1).float().mean(0)
    assert 0 < float(same.mean()) < 1

    metrics, without = policy.update(batch), plain.update(batch)
    assert [metrics[f"router/agreement_layer_{layer}"] for layer in (1, 2)] == pytest.approx(same.tolist())
    assert {name: value for name, value in metrics.items() if not name.startswith("router/")} == without
    for one, other in zip(policy.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_experts_that_the_engine_did_not_report_are_refused() -> None:
    for replay in ("rollout", "compare"):
        with pytest.raises(EngineError, match="no routed experts"):
            policy_of(replay).update(batch_of())


def test_trainer_replay_keeps_the_routing_of_the_old_pass() -> None:
    policy = policy_of("trainer")
    batch = batch_of()
    assert not any(
        name.startswith("router/") for name in policy.update(batch)
    )  # on-policy: nothing to replay
    shares = []
    for _ in range(2):  # two steps: the second must not use the first one's routing
        batch.old_logprobs = policy.logprobs(batch)
        shares += [policy.update(batch)["router/agreement"] for _ in range(3)]
    assert shares[0] == shares[3] == 1.0
    assert min(shares) < 1.0
    batch.completion_tokens = [[60, 61], *COMPLETIONS[1:]]
    with pytest.raises(EngineError, match=r"'a' is updated without the pass"):
        policy.update(batch)


def test_trainer_replay_updates_with_the_old_experts() -> None:
    """Second update: the same as that of a policy given the first policy's experts from outside."""
    own, given = policy_of("trainer"), policy_of("rollout")
    batch = batch_of()
    batch.old_logprobs = own.logprobs(batch)
    keys = zip(batch.prompt_ids, map(tuple, COMPLETIONS), strict=True)
    other = batch_of([own.routing._own[key] for key in keys])
    other.old_logprobs = batch.old_logprobs
    for _ in range(2):
        own.update(batch)
        given.update(other)
    for (name, mine), theirs in zip(own.model.named_parameters(), given.model.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_the_reference_routes_by_itself() -> None:
    batch = batch_of(random_experts())
    plain, replaying = policy_of("off", beta=0.04), policy_of("rollout", beta=0.04)
    assert replaying.ref_logprobs(batch) == plain.ref_logprobs(batch) == plain.logprobs(batch)
    assert replaying.logprobs(batch) != plain.logprobs(batch)
