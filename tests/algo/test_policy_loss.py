import math

import pytest
import torch

from align.algo.policy_loss import clipped_policy_loss, policy_loss
from align.config.grpo import GrpoConfig

CLIP = {"clip_low": 0.2, "clip_high": 0.2}
WHOLE = GrpoConfig(level="sequence", importance={"level": "sequence"})


def test_four_corners_by_hand():
    # ratio 1.5 and 0.5, advantage +1 and -1
    log_ratio = torch.tensor([1.5, 1.5, 0.5, 0.5]).log()[:, None]
    advantages = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    loss, clipped = clipped_policy_loss(log_ratio, advantages, torch.ones(4, 1, dtype=torch.bool), **CLIP)
    # min(1.5, 1.2), min(-1.5, -1.2), min(0.5, 0.8), min(-0.5, -0.8), negated
    assert loss.squeeze(1).tolist() == pytest.approx([-1.2, 1.5, -0.5, 0.8])
    assert clipped.squeeze(1).tolist() == [True, False, False, True]


def test_clip_higher_moves_only_the_upper_bound():
    log_ratio = torch.tensor([[math.log(1.25)]])
    mask, advantage = torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 1)
    loss, clipped = clipped_policy_loss(log_ratio, advantage, mask, clip_low=0.2, clip_high=0.28)
    assert loss.item() == pytest.approx(-1.25)
    assert not clipped.item()


def test_clip_low_1_is_no_lower_bound():
    log_ratio = torch.tensor([[math.log(0.01)]])
    mask, advantage = torch.ones(1, 1, dtype=torch.bool), -torch.ones(1, 1)
    loss, clipped = clipped_policy_loss(log_ratio, advantage, mask, clip_low=1.0, clip_high=0.2)
    assert loss.item() == pytest.approx(0.01)
    assert not clipped.item()


def test_clipped_tokens_have_no_gradient():
    new = torch.tensor([[math.log(1.5), math.log(1.1)]], requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    loss, _ = policy_loss(new, torch.zeros(1, 2), torch.ones(1, 1), mask, GrpoConfig())
    loss.sum().backward()
    assert new.grad is not None
    assert new.grad.tolist()[0] == pytest.approx([0.0, -1.1])


def test_each_token_may_have_its_own_advantage():
    new = torch.tensor([[math.log(1.1), math.log(1.1)]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    loss, _ = policy_loss(new, torch.zeros(1, 2), torch.tensor([[1.0, -2.0]]), mask, GrpoConfig())
    assert loss.tolist()[0] == pytest.approx([-1.1, 2.2])


def test_sequence_level_uses_the_ratio_of_whole_completions():
    # printed form: rho = exp(sum of log ratios) = exp(0.1 + 0.3 - 0.25) and each token carries it
    new, old = torch.tensor([[0.1, 0.3, -0.25]]), torch.zeros(1, 3)
    mask = torch.ones(1, 3, dtype=torch.bool)
    loss, _ = policy_loss(new, old, torch.tensor([[2.0]]), mask, WHOLE)
    assert (loss / 3).sum().item() == pytest.approx(-2 * math.exp(0.15))


@pytest.mark.parametrize(
    "config",
    [
        GrpoConfig(),
        WHOLE,
        GrpoConfig(policy_loss="gspo", clip_low=3e-4, clip_high=4e-4, importance={"level": "sequence"}),
        GrpoConfig(policy_loss="gspo_token", clip_low=3e-4, clip_high=4e-4),
        GrpoConfig(policy_loss="cispo", clip_low=1, clip_high=4),
    ],
)
def test_padding_carries_nothing(config):
    new = torch.tensor([[0.0, 30.0]], requires_grad=True)
    mask = torch.tensor([[True, False]])
    loss, clipped = policy_loss(new, torch.zeros(1, 2), torch.ones(1, 1), mask, config)
    assert loss[0, 1].item() == 0
    assert not clipped.any()
    loss.sum().backward()
    assert new.grad is not None
    assert new.grad.tolist() == [[-1.0, 0.0]]
