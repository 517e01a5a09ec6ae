from __future__ import annotations

import pytest
import torch

from align.algo.router import expert_balance_loss, expert_load, peak_load


def brute_force(logits, selected, segments) -> list[float]:
    """The formula of the report, loop by loop."""
    layers, rows, _, experts = logits.shape
    choices = selected.shape[-1]
    losses = []
    for layer in range(layers):
        terms = []
        for row in range(rows):
            for segment in sorted(set(segments[row].tolist()) - {0}):
                places = [s for s, found in enumerate(segments[row].tolist()) if found == segment]
                total = 0.0
                for expert in range(experts):
                    hits = sum(expert in selected[layer, row, s].tolist() for s in places)
                    f = experts / (choices * len(places)) * hits
                    p = sum(float(logits[layer, row, s].softmax(-1)[expert]) for s in places) / len(places)
                    total += f * p
                terms.append(total)
        losses.append(sum(terms) / len(terms))
    return losses


def sample(layers=2, rows=3, width=7, experts=6, choices=2, seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(layers, rows, width, experts)
    selected = logits.topk(choices, -1).indices
    segments = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 2, 2, 3, 0], [1, 1, 0, 0, 0, 0, 0]])
    return logits, selected, segments


def test_matches_the_formula_with_packing_and_padding():
    logits, selected, segments = sample()
    loss = expert_balance_loss(logits, selected, segments)
    assert loss.tolist() == pytest.approx(brute_force(logits, selected, segments), rel=1e-5)


def test_by_hand():
    # Two tokens, two experts, one choice: both choose expert 0 with affinity 3/4.
    logits = torch.tensor([3.0, 1.0]).log().expand(1, 1, 2, 2)
    selected = torch.zeros(1, 1, 2, 1, dtype=torch.long)
    loss = expert_balance_loss(logits, selected, torch.ones(1, 2, dtype=torch.long))
    # f = [2/(1*2)*2, 0] = [2, 0]; P = [0.75, 0.25]
    assert loss.item() == pytest.approx(1.5)


def test_even_load_gives_one():
    logits = torch.zeros(1, 1, 4, 4)
    selected = torch.arange(4).view(1, 1, 4, 1)
    loss = expert_balance_loss(logits, selected, torch.ones(1, 4, dtype=torch.long))
    assert loss.item() == pytest.approx(1)


def test_padding_has_no_say():
    logits, selected, segments = sample()
    before = expert_balance_loss(logits, selected, segments)
    logits[:, segments == 0] = 50.0
    selected[:, segments == 0] = 3
    assert torch.equal(before, expert_balance_loss(logits, selected, segments))


def test_a_packed_row_equals_its_sequences_in_rows_of_their_own():
    logits, selected, _ = sample(rows=1, width=6)
    packed = expert_balance_loss(logits, selected, torch.tensor([[1, 1, 2, 2, 2, 2]]))
    padding = torch.zeros(2, 1, 2, 6), torch.zeros(2, 1, 2, 2, dtype=torch.long)
    apart_logits = torch.cat([torch.cat([logits[:, :, :2], padding[0]], 2), logits[:, :, 2:]], 1)
    apart_selected = torch.cat([torch.cat([selected[:, :, :2], padding[1]], 2), selected[:, :, 2:]], 1)
    apart = expert_balance_loss(apart_logits, apart_selected, torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]))
    assert packed.tolist() == pytest.approx(apart.tolist())


def test_the_gradient_flows_through_the_affinities_only():
    logits, selected, segments = sample()
    logits.requires_grad_()
    expert_balance_loss(logits, selected, segments).sum().backward()
    gradient = logits.grad
    assert gradient is not None
    assert torch.all(gradient[:, segments == 0] == 0)
    # With f held fixed the loss is linear in the affinities of each token.
    row, layer = 0, 1
    scores = logits[layer, row].detach().softmax(-1)
    f = torch.stack([(selected[layer, row] == e).sum() * 6 / (2 * 7) for e in range(6)])
    share = 1 / 5 / 7  # one of five sequences, one of seven tokens
    expected = share * scores * (f - (scores * f).sum(-1, keepdim=True))
    torch.testing.assert_close(gradient[layer, row], expected, rtol=1e-4, atol=1e-6)


def test_choices_need_not_be_the_top_scores():
    # Device-limited routing forbids the best expert; f follows the choice that was made.
    logits = torch.tensor([2.0, 1.0, 1.0]).log().expand(1, 1, 1, 3)
    loss = expert_balance_loss(logits, torch.tensor([[[[1]]]]), torch.ones(1, 1, dtype=torch.long))
    assert loss.item() == pytest.approx(3 * 0.25)


def test_no_real_token_gives_zero_and_a_gradient():
    logits = torch.randn(1, 1, 2, 4, requires_grad=True)
    selected, padding = torch.zeros(1, 1, 2, 1, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long)
    loss = expert_balance_loss(logits, selected, padding)
    loss.sum().backward()
    assert loss.tolist() == [0.0]


def test_load_and_peak():
    selected = torch.tensor([[[[0, 1], [0, 2], [3, 3]]]])
    load = expert_load(selected, torch.tensor([[1, 1, 0]]), experts=4)
    assert load.tolist() == [[0.5, 0.25, 0.25, 0.0]]
    assert peak_load(load).tolist() == [2.0]
