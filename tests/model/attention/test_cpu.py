"""Attention by plain products against PyTorch's own, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from align.model.attention import cpu as cpu_attention


def llama() -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 40}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes, **heads))


def tensors(dtype: torch.dtype, *, rows: int = 3, tokens: int = 5, shared: int = 4) -> list[torch.Tensor]:
    torch.manual_seed(0)
    keys = shared + tokens
    shapes = ((rows, tokens, 6, 8), (rows, keys, 2, 8), (rows, keys, 2, 10))
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


def reference(query, key, value, scale, mask):
    key, value = (each.repeat_interleave(3, dim=2) for each in (key, value))
    output = functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask, scale=scale
    )
    return output.transpose(1, 2)


@pytest.mark.parametrize("kept", [0, cpu_attention.KEPT])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("shared", [4, 11, 12])  # 9, 16 and 17 keys: less, just and more than LANES
def test_equals_the_plain_formula(shared, dtype, bound, kept, monkeypatch):
    monkeypatch.setattr(cpu_attention, "KEPT", kept)
    own = torch.ones(5, 5, dtype=torch.bool).tril()
    mask = torch.cat([torch.ones(5, shared, dtype=torch.bool), own], 1)
    found, wanted = tensors(dtype, shared=shared), tensors(dtype, shared=shared)
    outputs = [
        cpu_attention.plain_attention(*found, scale=0.3, mask=mask),
        reference(*wanted, 0.3, mask),
    ]
    torch.testing.assert_close(*outputs, rtol=0, atol=bound)
    direction = torch.randn_like(outputs[0])
    for output in outputs:
        output.backward(direction)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=bound)


def test_bf16_is_as_close_to_the_truth_as_the_fused_kernel():
    mask = torch.ones(40, 40, dtype=torch.bool).tril()
    exact = tensors(torch.float64, tokens=40, shared=0)
    truth = reference(*exact, 0.3, mask)
    truth.sum().backward()
    errors = {}
    for name, compute in (("plain", cpu_attention.plain_attention), ("fused", reference)):
        narrow = [each.detach().bfloat16().requires_grad_() for each in exact]
        compute(*narrow, 0.3, mask).sum().backward()
        errors[name] = [
            (ours.grad.double() - true.grad).abs().mean() for ours, true in zip(narrow, exact, strict=True)
        ]
    for plain, fused in zip(errors["plain"], errors["fused"], strict=True):
        assert plain < 2 * fused


def test_without_a_mask_it_is_causal():
    query, key, value = tensors(torch.float64, shared=0)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    torch.testing.assert_close(
        cpu_attention.attend(query, key, value, 0.3, None),
        cpu_attention.attend(query, key, value, 0.3, mask),
    )


def test_every_row_may_have_a_mask_of_its_own():
    query, key, value = tensors(torch.float64)
    masks = torch.rand(3, 5, 9) > 0.4
    masks[:, :, 0] = True
    together = cpu_attention.attend(query, key, value, 0.3, masks)
    for row in range(3):
        alone = cpu_attention.attend(
            query[row : row + 1], key[row : row + 1], value[row : row + 1], 0.3, masks[row]
        )
        torch.testing.assert_close(together[row : row + 1], alone)


def test_a_query_that_sees_nothing_harms_no_other():
    query, key, value = tensors(torch.float32)
    mask = torch.ones(5, 9, dtype=torch.bool)
    mask[0] = False
    cpu_attention.attend(query, key, value, 0.3, mask)[:, 1:].sum().backward()
    assert all(each.grad.isfinite().all() for each in (query, key, value))


@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_model_gives_the_same_logits_and_gradients(padding):
    """Padded rows and packed rows, as transformers masks them."""
    ids = torch.arange(2, 26).reshape(2, 12)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    if padding == "right":
        mask = mask.flip(1)
    packed = {"position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3, 4]]), "use_cache": False}
    found = []
    for choose in (lambda model: None, cpu_attention.use_cpu_attention):
        model = llama()
        choose(model)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[mask.bool()]
        rows = model(input_ids=ids[:1], **packed).logits
        (logits.logsumexp(-1).sum() + rows.logsumexp(-1).sum()).backward()
        found.append([logits, rows, *(parameter.grad for parameter in model.parameters())])
    assert model.config._attn_implementation == cpu_attention.NAME
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_long_contexts_go_to_the_fused_kernel():
    query = torch.empty(1, 4096, 8, 1)
    assert cpu_attention.fits(query[:, :2048], query[:, :4096])
    assert not cpu_attention.fits(query, query)
