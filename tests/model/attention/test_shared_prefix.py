"""Packed rows against the plain computation, one row at a time."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from align.errors import ModelError
from align.model.attention.shared_prefix import pack, use_shared_prefix
from align.model.logprobs import completion_logprobs

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


SMALL = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}


def of(kind: str, **settings):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(SMALL | HEADS | settings)))


def with_bias(model):
    head = model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.ones(head.out_features))
    return model


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: of("granite", logits_scaling=8.0), r"scaled \(logits_scaling 8\)"),
        (lambda: of("cohere"), r"scaled \(logit_scale 0\.0625\)"),
        (
            lambda: of("gemma3_text", layer_types=["full_attention"], final_logit_softcapping=1.0),
            "softcapping",
        ),
        (lambda: with_bias(of("llama")), "head has a bias"),
        (lambda: of("gemma2", layer_types=["full_attention"]), "attn_logit_softcapping"),
        (
            lambda: of("gpt_oss", layer_types=["full_attention"], num_local_experts=2, num_experts_per_tok=1),
            "sinks",
        ),
    ],
    ids=["granite", "cohere", "capped-at-1", "biased-head", "gemma2", "gpt-oss"],
)
def test_what_log_probabilities_would_leave_out_is_refused(make, told):
    model = make()
    before = model.config._attn_implementation
    with pytest.raises(ModelError, match=told) as caught:
        use_shared_prefix(model)
    assert caught.value.key == "policy.path"
    assert caught.value.remedy
    assert model.config._attn_implementation == before


def test_a_factor_of_one_scales_nothing():
    model = of("granite", logits_scaling=1.0)
    use_shared_prefix(model)
    out = completion_logprobs(model, PROMPTS, COMPLETIONS)
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        expected = plainly(model, prompt, completion)
        torch.testing.assert_close(out.logprobs_BT[row, : len(completion)], expected, atol=1e-5, rtol=0)


def test_a_classifier_has_no_logits_to_scale():
    config = AutoConfig.for_model("llama", **SMALL, **HEADS, logit_scale=0.5, num_labels=1)
    use_shared_prefix(AutoModelForSequenceClassification.from_config(config))


@pytest.mark.parametrize("name", ["softcap", "s_aux", "position_bias"])
def test_attention_that_shows_only_in_its_call_is_refused_there(name, tiny_llama, monkeypatch):
    use_shared_prefix(tiny_llama)
    attention = tiny_llama.model.layers[0].self_attn
    plain = attention.forward
    monkeypatch.setattr(attention, "forward", lambda *args, **kwargs: plain(*args, **kwargs, **{name: 1.0}))
    with pytest.raises(ModelError, match=f"attends with {name}"):
        completion_logprobs(tiny_llama, PROMPTS, COMPLETIONS)


def test_attention_that_cannot_be_replaced_is_refused():
    config = AutoConfig.for_model("mpt", vocab_size=97, d_model=32, n_heads=2, n_layers=1)
    with pytest.raises(ModelError, match="cannot replace"):
        use_shared_prefix(AutoModelForCausalLM.from_config(config))


def test_layers_that_keep_the_segments_from_their_attention_are_refused(tiny_llama, monkeypatch):
    use_shared_prefix(tiny_llama)
    for layer in tiny_llama.model.layers:
        attention = layer.self_attn
        monkeypatch.setattr(
            attention,
            "forward",
            lambda segments, plain=attention.forward, **kwargs: plain(**kwargs),
        )
    with pytest.raises(ModelError, match="does not hand its attention"):
        completion_logprobs(tiny_llama, PROMPTS, COMPLETIONS)
