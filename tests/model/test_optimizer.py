import copy

import pytest
import torch

from align.config.optim import OptimConfig
from align.errors import NonFiniteError
from align.model.optimizer import MasterAdamW

CONFIG = OptimConfig(lr=1e-2, weight_decay=0.1, grad_clip=0.5)


def net(dtype: torch.dtype) -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).to(dtype)


def backward(model: torch.nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    dtype = next(model.parameters()).dtype
    for _ in range(2):  # two micro-batches
        model(torch.randn(4, 6, generator=generator).to(dtype)).float().square().mean().backward()


def test_fp32_is_torch_adamw():
    ours, theirs = net(torch.float32), net(torch.float32)
    optimizer = MasterAdamW(ours.named_parameters(), CONFIG)
    matrices = [p for p in theirs.parameters() if p.ndim >= 2]
    vectors = [p for p in theirs.parameters() if p.ndim < 2]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=1e-2,
        betas=CONFIG.betas,
        eps=CONFIG.eps,
    )
    for step in range(3):
        backward(ours, step)
        backward(theirs, step)
        expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        reference.step()
        reference.zero_grad()
        assert optimizer.step(1e-2) == pytest.approx(float(expected), rel=1e-5)
    for ours_p, theirs_p in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours_p, theirs_p)


def test_bf16_keeps_updates_that_bf16_alone_would_lose():
    model = net(torch.bfloat16)
    start = copy.deepcopy(model.state_dict())
    optimizer = MasterAdamW(model.named_parameters(), CONFIG)
    for step in range(200):
        backward(model, step)
        optimizer.step(1e-5)  # far below the spacing of bf16 near most weights
    moved = [(optimizer.master[name] - start[name].float()).abs().max() for name in start]
    assert max(moved) > 1e-3
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, optimizer.master[name].bfloat16())
        assert parameter.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_restores_exactly(dtype):
    first, second = net(dtype), net(dtype)
    one = MasterAdamW(first.named_parameters(), CONFIG)
    for step in range(3):
        backward(first, step)
        one.step(1e-2)
    two = MasterAdamW(second.named_parameters(), CONFIG)
    two.load_state({name: tensor.clone() for name, tensor in one.state().items()})
    for model, optimizer in ((first, one), (second, two)):
        backward(model, 9)
        optimizer.step(1e-2)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_named(dtype, value):
    model = net(dtype)
    optimizer = MasterAdamW(model.named_parameters(), CONFIG)
    backward(model, 0)
    optimizer.step(1e-2)
    before = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    weights = copy.deepcopy(model.state_dict())
    backward(model, 1)
    (model(torch.ones(1, 6, dtype=dtype)).float()[0, 1] * value).backward()
    with pytest.raises(NonFiniteError, match=r"step 7: the gradient is not finite, first in 0\.bias"):
        optimizer.step(1e-2, "step 7: ")
    assert all(torch.equal(tensor, before[name]) for name, tensor in optimizer.state().items())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    backward(model, 1)  # nothing of the broken gradient is left
    assert optimizer.step(1e-2) < 1e3


def test_weights_or_moments_that_are_not_finite_are_found():
    model = net(torch.bfloat16)
    optimizer = MasterAdamW(model.named_parameters(), CONFIG)
    backward(model, 0)
    optimizer.step(1e-2)
    assert optimizer.fault() is None
    optimizer.master["2.bias"].data.fill_(3e38)  # finite, though their sum overflows
    assert optimizer.fault() is None
    optimizer.adamw.state[optimizer.master["0.weight"]]["exp_avg"][1, 2] = float("inf")
    found = optimizer.fault()
    assert isinstance(found, NonFiniteError)
    assert found.message == "0.weight holds values that are no finite numbers (exp_avg)"
