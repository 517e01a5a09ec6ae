import math

import pytest
import torch

from align.algo.kl import kl_estimate


def test_by_hand():
    policy, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert kl_estimate(policy, reference, "k1").item() == pytest.approx(math.log(2))
    assert kl_estimate(policy, reference, "k2").item() == pytest.approx(math.log(2) ** 2 / 2)
    # ratio 1/2: 1/2 - ln(1/2) - 1
    assert kl_estimate(policy, reference, "k3").item() == pytest.approx(0.5 + math.log(2) - 1)


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_expectation_is_the_kl(kind):
    generator = torch.Generator().manual_seed(0)
    policy = torch.randn(7, generator=generator).log_softmax(0)
    reference = torch.randn(7, generator=generator).log_softmax(0)
    exact = (policy.exp() * (policy - reference)).sum()
    estimate = (policy.exp() * kl_estimate(policy, reference, kind)).sum()
    assert estimate.item() == pytest.approx(exact.item(), abs=1e-6)


def test_k3_gradient_is_one_minus_ratio():
    # DeepSeekMath's gradient coefficient: beta * (pi_ref / pi - 1) on log pi, negated in a loss
    policy = torch.tensor([math.log(0.5)], requires_grad=True)
    kl_estimate(policy, torch.tensor([math.log(0.25)]), "k3").sum().backward()
    assert policy.grad is not None
    assert policy.grad.item() == pytest.approx(1 - 0.5)
