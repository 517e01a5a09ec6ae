import math

import pytest
import torch

from align.algo.cispo import cispo_loss

NEW, OLD = torch.tensor([[-0.5, -1.0, -2.0]]), torch.tensor([[-2.5, -1.5, -1.0]])
MASK = torch.ones(1, 3, dtype=torch.bool)


def test_by_hand():
    # ratios e^2 = 7.39, e^0.5 = 1.65, e^-1 = 0.37; the first weight is cut to 1 + 4
    loss, clipped = cispo_loss(NEW, OLD, torch.tensor([[2.0]]), MASK, clip_low=1, clip_high=4)
    assert loss[0].tolist() == pytest.approx([5 * 2 * 0.5, math.exp(0.5) * 2 * 1.0, math.exp(-1) * 2 * 2.0])
    assert clipped.tolist() == [[True, False, False]]


def test_a_lower_bound_lifts_small_weights():
    loss, clipped = cispo_loss(NEW, OLD, torch.tensor([[2.0]]), MASK, clip_low=0.5, clip_high=4)
    assert loss[0, 2].item() == pytest.approx(0.5 * 2 * 2.0)
    assert clipped.tolist() == [[True, False, True]]


def test_clipped_tokens_keep_their_gradient():
    # where the clipped objective gives the first token none
    new = NEW.clone().requires_grad_()
    loss, _ = cispo_loss(new, OLD, torch.tensor([[2.0]]), MASK, clip_low=1, clip_high=4)
    loss.sum().backward()
    assert new.grad is not None
    assert new.grad.tolist()[0] == pytest.approx([-5 * 2, -2 * math.exp(0.5), -2 * math.exp(-1)])
