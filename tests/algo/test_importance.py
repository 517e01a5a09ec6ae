import math

import pytest
import torch

from align.algo.importance import importance_weights
from align.config.grpo import ImportanceConfig

# ratios 4, 1/2 and 8 (8 is padding); then 1/10
OLD = torch.tensor([[4.0, 0.5, 8.0], [0.1, 1.0, 1.0]]).log()
ROLLOUT = torch.zeros(2, 3)
MASK = torch.tensor([[True, True, False], [True, False, False]])


def weights(**settings: object):
    return importance_weights(OLD, ROLLOUT, MASK, ImportanceConfig(**settings))


def test_tokens_by_hand():
    found = weights(level="token", cap=2)
    assert found.weight_BT[MASK].tolist() == pytest.approx([2.0, 0.5, 0.1])
    assert torch.equal(found.kept_BT, MASK)
    assert found.ratios_M.tolist() == pytest.approx([4.0, 0.5, 0.1])


def test_sequences_by_hand():
    # 4 * 1/2 = 2, cut to 1.5
    found = weights(level="sequence", cap=1.5)
    assert found.weight_BT[MASK].tolist() == pytest.approx([1.5, 1.5, 0.1])
    assert found.ratios_M.tolist() == pytest.approx([2.0, 0.1])


def test_off_corrects_nothing_and_still_reports():
    found = weights(level="off")
    assert found.weight_BT[MASK].tolist() == [1.0, 1.0, 1.0]
    assert torch.equal(found.kept_BT, MASK)
    assert found.ratios_M.tolist() == pytest.approx([4.0, 0.5, 0.1])


def test_rejected_tokens():
    assert weights(level="token", reject_above=3).kept_BT.tolist() == [
        [False, True, False],
        [True, False, False],
    ]
    assert weights(level="token", reject_below=0.2).kept_BT.tolist() == [[True, True, False], [False] * 3]
    both = weights(level="token", cap=2, reject_above=3, reject_below=0.2)
    assert both.kept_BT.tolist() == [[False, True, False], [False] * 3]


def test_rejected_sequences_go_whole():
    # the ratio of the first is 2, though one of its tokens has 4
    assert torch.equal(weights(level="sequence", reject_above=3).kept_BT, MASK)
    found = weights(level="sequence", cap=1.5, reject_above=1.9, reject_below=0.2)
    assert not found.kept_BT.any()


def test_a_bound_itself_is_kept():
    old = torch.tensor([[math.log(3.0)]])
    config = ImportanceConfig(reject_above=float(old.exp()))
    assert importance_weights(
        old, torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), config
    ).kept_BT.all()


def test_a_hopeless_sequence_is_finite():
    config = ImportanceConfig(level="sequence", reject_above=10)
    mask = torch.ones(1, 3, dtype=torch.bool)
    found = importance_weights(torch.zeros(1, 3), torch.full((1, 3), -50.0), mask, config)
    assert found.weight_BT.tolist() == [[2.0, 2.0, 2.0]]
    assert not found.kept_BT.any()


def test_no_gradient():
    old = OLD.clone().requires_grad_()
    assert not importance_weights(old, ROLLOUT, MASK, ImportanceConfig()).weight_BT.requires_grad
