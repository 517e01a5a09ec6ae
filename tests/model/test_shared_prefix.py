"""Packed rows against the plain computation, one row at a time."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from align.errors import ModelError
from align.model.logprobs import completion_logprobs
from align.model.shared_prefix import pack, use_shared_prefix

PROMPTS = [[5, 6, 7]] * 3 + [[8]] * 2 + [[9, 10, 11, 12]]
COMPLETIONS = [[20, 21], [30, 31, 32, 33, 1], [40], [41], [50], [51, 52, 53]]


@pytest.fixture
def tiny_llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture(params=["tiny_llama", "tiny_moe"])
def model(request):
    return request.getfixturevalue(request.param)


def plainly(model, prompt, completion):
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0].float()
    logp = logits.log_softmax(-1)
    rows = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return torch.stack([logp[r, t] for r, t in zip(rows, completion, strict=True)])


def test_values_and_gradients_equal_separate_rows(model):
    weights = torch.tensor([0.3, -1.0, 2.0, 0.5, -0.7, 1.1])
    plain = [plainly(model, p, c) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    sum(w * each.sum() for w, each in zip(weights, plain, strict=True)).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    use_shared_prefix(model)
    out = completion_logprobs(model, PROMPTS, COMPLETIONS)
    for row, each in enumerate(plain):
        torch.testing.assert_close(out.logprobs_BT[row, : len(each)], each, atol=1e-5, rtol=0)
    (out.logprobs_BT.sum(-1) * weights).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4)


def test_each_prompt_is_fed_once():
    row = pack(PROMPTS, COMPLETIONS, "cpu")
    assert row.input_ids[0].tolist() == [5, 6, 7, 20, 30, 31, 32, 33, 8, 9, 10, 11, 12, 51, 52]
    assert row.position_ids[0].tolist() == [0, 1, 2, 3, 3, 4, 5, 6, 0, 0, 1, 2, 3, 4, 5]
    # Each completion token is predicted by the token before it; first tokens by the prompt's last.
    assert row.predictors_N.tolist() == [2, 3, 2, 4, 5, 6, 7, 2, 8, 8, 12, 13, 14]


def test_a_completion_sees_its_prompt_and_itself_alone(tiny_moe):
    use_shared_prefix(tiny_moe)
    together = completion_logprobs(tiny_moe, PROMPTS[:3], COMPLETIONS[:3])
    others = [[60, 61], COMPLETIONS[1], [62]]
    changed = completion_logprobs(tiny_moe, PROMPTS[:3], others)
    torch.testing.assert_close(together.logprobs_BT[1], changed.logprobs_BT[1], atol=1e-6, rtol=0)


def test_without_a_packed_row_attention_is_the_usual_one(model):
    tokens = torch.tensor([[5, 6, 7, 8, 9]])
    before = model(input_ids=tokens).logits
    use_shared_prefix(model)
    torch.testing.assert_close(model(input_ids=tokens).logits, before, atol=1e-6, rtol=0)


def test_windowed_attention_is_refused():
    config = MistralConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, sliding_window=16,
    )  # fmt: skip
    with pytest.raises(ModelError, match="window"):
        use_shared_prefix(MistralForCausalLM(config))
