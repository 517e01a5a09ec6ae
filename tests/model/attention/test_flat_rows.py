"""Rows without padding: how they become rectangles, and a model on them against padded rows."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from align.errors import ModelError
from align.model.attention.flat_rows import FILLED, blocks, use_flat_rows


def test_rectangles_by_hand():
    found = blocks([2, 4, 3])
    # The sequences stand at 0-1, 2-5 and 6-8; 4 and 3 are alike, 2 is less than three quarters of 4.
    assert [pick.tolist() for pick in found.picks] == [[[2, 3, 4, 5], [6, 7, 8, 8]], [[0, 1]]]
    assert found.back_S.tolist() == [8, 9, 0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("seed", range(4))
def test_there_and_back(seed):
    source = random.Random(seed)
    lengths = [source.randint(1, 40) for _ in range(source.randint(1, 12))]
    found = blocks(lengths)
    row = torch.arange(sum(lengths))
    placed = torch.cat([row[pick].flatten() for pick in found.picks])
    assert torch.equal(placed[found.back_S], row)
    assert len(placed) <= sum(lengths) / FILLED


def dense() -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 40}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes, **heads))


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_a_model_sees_each_sequence_alone(kind, tiny_moe):
    """Logits and gradients equal those of padded rows."""
    model = dense() if kind == "dense" else tiny_moe
    lengths = [5, 9, 8, 1]
    padded = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    padded[mask] = torch.randint(2, 40, (sum(lengths),), generator=torch.Generator().manual_seed(0))
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    found = []
    for flat in (False, True):
        model.zero_grad()
        if flat:
            assert use_flat_rows(model)
            rows = {"input_ids": padded[mask][None], "position_ids": positions, "blocks": blocks(lengths)}
            logits = model(**rows, use_cache=False).logits[0]
        else:
            logits = model(input_ids=padded, attention_mask=mask.long(), use_cache=False).logits[mask]
        logits.logsumexp(-1).sum().backward()
        found.append([logits, *(p.grad for p in model.parameters() if p.grad is not None)])
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_a_flat_model_refuses_rows_without_blocks():
    model = dense()
    assert use_flat_rows(model)
    with pytest.raises(ModelError, match="does not pass on"):
        model(input_ids=torch.ones(1, 4, dtype=torch.long))


def test_models_whose_layers_are_not_all_full_attention_keep_padded_rows():
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 40}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4}
    windows = AutoConfig.for_model("mistral", **sizes, **heads, sliding_window=8)
    mixed = AutoConfig.for_model("gemma3_text", **sizes, **heads, sliding_window=8)
    state = AutoConfig.for_model(
        "lfm2", **sizes, num_attention_heads=6, num_key_value_heads=2, layer_types=["conv", "full_attention"]
    )
    noisy = AutoConfig.for_model("llama", **sizes, **heads, attention_dropout=0.1)
    for config in (windows, mixed, state, noisy):
        model = AutoModelForCausalLM.from_config(config)
        assert not use_flat_rows(model)
        assert model.config._attn_implementation == "sdpa"
