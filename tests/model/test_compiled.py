"""Compiled layers and passes against eager ones."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters
from transformers import AutoConfig, AutoModelForCausalLM

from align.config.policy import LoraConfig
from align.errors import ModelError
from align.model import compiled, logprobs
from align.model.attention.flat_rows import blocks, use_flat_rows
from align.model.attention.shared_prefix import use_shared_prefix
from align.model.files.lora import add_lora
from align.model.logprobs import completion_logprobs


def dense() -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 40}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes, **heads))


def packed(model: torch.nn.Module, groups: int, length: int) -> list[torch.Tensor]:
    """Log-probabilities and gradients of some groups of three completions."""
    model.zero_grad()
    prompts = [[2 + group, 5, 7, 9][: 2 + group % 3] for group in range(groups) for _ in range(3)]
    answers = [[(11 * row + step) % 38 for step in range(length + row % 3)] for row in range(3 * groups)]
    found = completion_logprobs(model, prompts, answers).logprobs_BT
    found.sum().backward()
    return [found, *(p.grad for p in model.parameters() if p.grad is not None)]


def flat(model: torch.nn.Module, lengths: list[int]) -> list[torch.Tensor]:
    model.zero_grad()
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    ids = (7 * torch.arange(sum(lengths))[None]) % 38
    logits = model(input_ids=ids, position_ids=positions, blocks=blocks(lengths), use_cache=False).logits
    logits.logsumexp(-1).sum().backward()
    return [logits, *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize(
    ("prepare", "compute", "batches"),
    [
        (use_shared_prefix, packed, [(2, 4), (3, 5), (1, 9), (4, 3)]),
        (use_flat_rows, flat, [([5, 4, 9],), ([3, 3],), ([12, 2, 7, 6],)]),
    ],
)
def test_layers_compute_the_same_and_compile_nothing_anew_for_other_batches(prepare, compute, batches):
    plain, fast = dense(), dense()
    prepare(plain)
    prepare(fast)
    assert compiled.compile_layers(fast, True, on_cpu=True)
    graphs = []
    for batch in batches:
        for one, other in zip(compute(fast, *batch), compute(plain, *batch), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs[-1] == graphs[1]


def test_passes_over_logits_equal_eager_ones(monkeypatch):
    hidden, weight = torch.randn(30, 16), torch.randn(50, 16)
    targets = torch.randint(0, 50, (30,))
    found = []
    for possible in (True, False):
        monkeypatch.setattr(compiled, "can_compile", lambda possible=possible: possible)
        inputs = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        scores = logprobs.token_logprobs(*inputs, targets, temperature=0.7)
        scores.logprobs_N.sum().backward()
        found.append([*scores, *(each.grad for each in inputs)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [pytest.param("lora", marks=pytest.mark.slow), "checkpointing"])
def test_adapters_and_recomputed_layers_may_be_compiled(kind):
    found = []
    for wanted in (False, True):
        model: torch.nn.Module = dense()
        use_shared_prefix(model)
        if kind == "lora":
            torch.manual_seed(1)
            model = add_lora(model, LoraConfig(rank=2))
        else:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        assert compiled.compile_layers(model.train(), wanted, on_cpu=True) == wanted
        found.append(packed(model, 2, 4))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_small_models_sharded_ones_and_those_of_experts_stay_eager_unless_told(tiny_moe, monkeypatch):
    def chosen(model, wanted=None, on_cpu=True):
        return compiled.compile_layers(model, wanted, on_cpu=on_cpu)

    assert not chosen(dense())
    monkeypatch.setattr(compiled, "PAYS", 1)
    assert chosen(dense())
    assert not chosen(dense(), on_cpu=False)
    assert not chosen(tiny_moe)
    with pytest.raises(ModelError, match="MoE") as caught:
        chosen(tiny_moe, True)
    assert caught.value.key == "policy.compile"
    monkeypatch.setattr(compiled, "can_compile", lambda: False)
    assert not chosen(dense())
    with pytest.raises(ModelError, match="cannot compile"):
        chosen(dense(), True)


def test_without_a_compiler_the_trial_says_so(monkeypatch, caplog):
    def broken(function, **options):
        def fails(*args):
            raise RuntimeError("No working C++ compiler found")

        return fails

    compiled.can_compile.cache_clear()
    monkeypatch.setattr(torch, "compile", broken)
    assert not compiled.can_compile()
    assert "No working C++ compiler" in caplog.text
    compiled.can_compile.cache_clear()
