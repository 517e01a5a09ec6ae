import math

import pytest
import torch

from align.algo.gspo import gspo_log_ratio, gspo_token_log_ratio
from align.algo.policy_loss import policy_loss
from align.config.grpo import GrpoConfig

MASK = torch.tensor([[True, True, True], [True, False, False]])
BOUNDS = {"clip_low": 3e-4, "clip_high": 4e-4}
GSPO = GrpoConfig(policy_loss="gspo", importance={"level": "sequence"}, **BOUNDS)


def test_the_ratio_is_the_geometric_mean_by_hand():
    # ratios 2, 4, 1: (2 * 4 * 1)^(1/3) = 2; a completion of one token keeps its own
    log_ratio = torch.tensor([[2.0, 4.0, 1.0], [3.0, 1.0, 1.0]]).log()
    found = gspo_log_ratio(log_ratio, MASK).exp()
    assert found[0].tolist() == pytest.approx([2.0, 2.0, 2.0])
    assert found[1, 0].item() == pytest.approx(3.0)


def test_the_clip_takes_whole_completions():
    # one token far off, two slightly the other way: a mean of 1e-3 is beyond 4e-4, so no token trains
    new = torch.tensor([[0.005, -0.001, -0.001]], requires_grad=True)
    mask = torch.ones(1, 3, dtype=torch.bool)
    loss, clipped = policy_loss(new, torch.zeros(1, 3), torch.ones(1, 1), mask, GSPO)
    assert clipped.all()
    assert loss[0].tolist() == pytest.approx([-1.0004] * 3)
    loss.sum().backward()
    assert new.grad is not None
    assert new.grad.tolist() == [[0.0, 0.0, 0.0]]


def test_the_gradient_is_the_ratio_times_the_mean_gradient():
    # s = exp((0.3 - 0.3 + 0.0003) / 3); d s / d log pi_t = s / 3; the three tokens' losses add up to s A
    new = torch.tensor([[0.3, -0.3, 0.0003]], requires_grad=True)
    mask = torch.ones(1, 3, dtype=torch.bool)
    loss, _ = policy_loss(new, torch.zeros(1, 3), torch.tensor([[2.0]]), mask, GSPO)
    (loss / 3).sum().backward()
    assert new.grad is not None
    assert new.grad.tolist()[0] == pytest.approx([-2 * math.exp(1e-4) / 3] * 3, rel=1e-5)


def test_the_token_form_has_the_value_of_the_mean_and_the_gradient_of_its_token():
    log_ratio = torch.tensor([[2.0, 4.0, 1.0]]).log().requires_grad_()
    mask = torch.ones(1, 3, dtype=torch.bool)
    found = gspo_token_log_ratio(log_ratio, mask).exp()
    assert found.tolist()[0] == pytest.approx([2.0, 2.0, 2.0])
    found[0, 1].backward()
    assert log_ratio.grad is not None
    assert log_ratio.grad.tolist()[0] == pytest.approx([0.0, 2.0, 0.0])


@pytest.mark.parametrize("seed", range(4))
def test_both_forms_agree_where_a_completion_has_one_advantage(seed):
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(2, 3, generator=generator) * 0.3
    advantages = torch.randn(2, 1, generator=generator)
    weights = MASK / MASK.sum(-1, keepdim=True) / 2
    found = []
    for name in ("gspo", "gspo_token"):
        new = start.clone().requires_grad_()
        config = GrpoConfig(policy_loss=name, clip_low=0.05, clip_high=0.05, importance={"level": "sequence"})
        loss, _ = policy_loss(new, torch.zeros(2, 3), advantages, MASK, config)
        (weights * loss).sum().backward()
        found.append(((weights * loss).sum().detach(), new.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_on_policy_it_is_the_token_form_of_grpo():
    # docs/algorithms.md: with one update per step the variants have one gradient
    start = -torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    weights = MASK / MASK.sum(-1, keepdim=True) / 2
    gradients = []
    for config in (
        GrpoConfig(),
        GSPO,
        GrpoConfig(policy_loss="gspo_token", **BOUNDS),
        GrpoConfig(policy_loss="cispo", clip_low=1, clip_high=4),
    ):
        new = start.clone().requires_grad_()
        loss, _ = policy_loss(new, start, torch.tensor([[1.0], [-2.0]]), MASK, config)
        (weights * loss).sum().backward()
        gradients.append(new.grad)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-5, atol=1e-6)
