"""The policy's update against plain computations, on the quickstart's policy."""

from pathlib import Path

import pytest
import torch

from align.algo.reduce import token_weights
from align.config.recipe import GrpoRecipe
from align.errors import NonFiniteError
from align.model.policy import PolicyModel
from align.types import TrainBatch

POLICY = Path(__file__).parents[2] / "recipes/quickstart/policy"


def recipe(dtype: str = "float32", **sections) -> GrpoRecipe:
    base = {
        "kind": "grpo",
        "name": "policy",
        "policy": {"path": str(POLICY), "init": "random", "dtype": dtype},
        "data": {"path": "none"},
        "rewards": {"terms": {"none": {"function": "none"}}},
        "grpo": {"beta": 0.0},
        "optim": {"lr": 1e-3},
    }
    return GrpoRecipe.model_validate(base | sections)


def batch_of(policy: PolicyModel, lengths=(5, 9, 3, 7)) -> TrainBatch:
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(2, 600, (count,), generator=generator).tolist()

    batch = TrainBatch(
        prompt_ids=[f"p/{i // 2}" for i in range(len(lengths))],
        prompt_tokens=[tokens(4 + i) for i in range(len(lengths))],
        completion_tokens=[tokens(length) for length in lengths],
        rollout_logprobs=[[0.0] * length for length in lengths],
        advantages=[1.0, -1.0, 0.5, -0.5],
        token_weights=token_weights(lengths, "sequence_mean", 16),
    )
    batch.rollout_logprobs = policy.logprobs(batch)
    return batch


def totals(policy: PolicyModel, batch: TrainBatch) -> list[float]:
    return [sum(row) for row in policy.logprobs(batch)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_updates_make_good_completions_likelier_and_bad_ones_less(dtype):
    policy = PolicyModel(recipe(dtype), device="cpu")
    batch = batch_of(policy)
    before = totals(policy, batch)
    for _ in range(5):
        batch.rollout_logprobs = policy.logprobs(batch)
        policy.update(batch)
    after = totals(policy, batch)
    for advantage, old, new in zip(batch.advantages, before, after, strict=True):
        assert (new - old) * advantage > 0


def test_micro_batches_change_nothing():
    gradients = []
    for budget in (8192, 20):
        policy = PolicyModel(recipe(grpo={"beta": 0.0, "micro_batch_tokens": budget}), device="cpu")
        batch = batch_of(policy)
        assert (len(policy._micro_batches(batch)) > 1) is (budget == 20)
        policy.update(batch)
        gradients.append({name: p.detach().clone() for name, p in policy.model.named_parameters()})
    for name, parameter in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], parameter, atol=2e-5, rtol=1e-3)


def test_the_reference_stays_where_it_was():
    policy = PolicyModel(recipe(grpo={"beta": 0.04}), device="cpu")
    batch = batch_of(policy)
    before = policy.ref_logprobs(batch)
    assert before == policy.logprobs(batch)
    batch.ref_logprobs = before
    first = policy.update(batch)
    assert first["train/kl"] == pytest.approx(0, abs=1e-6)
    assert policy.ref_logprobs(batch) == before
    assert policy.logprobs(batch) != before


def test_a_checkpoint_continues_exactly(tmp_path):
    first = PolicyModel(recipe("bfloat16"), device="cpu")
    batch = batch_of(first)
    first.update(batch)
    first.save(tmp_path)
    second = PolicyModel(recipe("bfloat16"), device="cpu")
    second.load(tmp_path)
    assert first.update(batch) == second.update(batch)
    assert first.logprobs(batch) == second.logprobs(batch)


def test_first_adapters_depend_on_the_seed_alone():
    def adapters(seed: int, before: int) -> list[torch.Tensor]:
        torch.manual_seed(before)
        lora = {"path": str(POLICY), "init": "random", "dtype": "float32", "lora": {"rank": 2}}
        policy = PolicyModel(recipe(seed=seed, policy=lora), device="cpu")
        return [p.detach().clone() for name, p in policy.model.named_parameters() if "lora_A" in name]

    first, again, other = adapters(0, 1), adapters(0, 2), adapters(3, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_reference_of_adapters_is_the_model_below_them():
    plain = {"path": str(POLICY), "init": "random", "dtype": "float32"}
    base = PolicyModel(recipe(policy=plain), device="cpu")
    policy = PolicyModel(recipe(policy=plain | {"lora": {"rank": 4}}, grpo={"beta": 0.04}), device="cpu")
    batch = batch_of(base)
    expected = base.logprobs(batch)
    assert policy.logprobs(batch) == expected  # fresh adapters add nothing
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    assert policy.ref_logprobs(batch) == expected
    adapted = policy.logprobs(batch)
    for row, plain_row in zip(adapted, expected, strict=True):
        assert max(abs(a - b) for a, b in zip(row, plain_row, strict=True)) > 1e-3


@pytest.mark.parametrize(
    ("dtype", "column", "value", "said"),
    [
        ("float32", "advantages", 1e39, "advantage of a completion of prompt p/1"),
        ("bfloat16", "advantages", float("nan"), "advantage of a completion of prompt p/1"),
        ("float32", "rollout_logprobs", float("nan"), "log-probability of the rollout engine .* prompt p/1"),
        ("bfloat16", "ref_logprobs", float("-inf"), "log-probability under the reference of a .* prompt p/1"),
    ],
)
def test_an_update_with_a_number_that_is_none_changes_nothing(dtype, column, value, said, tmp_path):
    policy = PolicyModel(recipe(dtype, grpo={"beta": 0.1, "micro_batch_tokens": 20}), device="cpu")
    batch = batch_of(policy)
    batch.ref_logprobs = policy.ref_logprobs(batch)
    policy.update(batch)
    before = {name: tensor.clone() for name, tensor in policy.optimizer.state().items()}
    good = getattr(batch, column)[2]
    getattr(batch, column)[2] = value if column == "advantages" else [0.0, value, 0.0]
    with pytest.raises(NonFiniteError, match=f"step 2: the loss is (nan|inf|-inf), as the {said}"):
        policy.update(batch)
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.optimizer.state().items())
    getattr(batch, column)[2] = good
    assert policy.update(batch)["train/grad_norm"] < 1e3
    policy.save(tmp_path)


def test_a_policy_that_is_not_finite_is_not_saved(tmp_path):
    policy = PolicyModel(recipe(), device="cpu")
    next(policy.model.parameters()).data[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="no finite numbers"):
        policy.save(tmp_path)
    assert not list(tmp_path.iterdir())
