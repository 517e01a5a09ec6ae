"""The CPU's output head against TRL's."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from align.train.sft.batches import IGNORED
from align.train.sft.head import use_cpu_head


def model_with_head(*, ours: bool, **config) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 50}
    heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes, **heads, **config))
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    if ours:
        use_cpu_head(model)
    return model


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 50, (3, 11), generator=source)
    trained = torch.rand(3, 11, generator=source) > 0.5
    return ids, ids.masked_fill(~trained, IGNORED)


def test_values_and_gradients_equal_those_of_the_head_it_replaces():
    ids, labels = rows()
    found = []
    for ours in (False, True):
        model = model_with_head(ours=ours)
        with torch.no_grad():  # some labels the likeliest token
            labels[0, 1:4] = model(input_ids=ids).logits[0, :3].argmax(-1)
        out = model(input_ids=ids, labels=labels, fused_lm_head=True)
        (out.log_probs.sum() / 7).backward()
        found.append((out, [parameter.grad for parameter in model.parameters()]))
    (theirs, wanted), (ours_out, gradients) = found
    assert theirs.is_top1.sum() >= 3
    for name in ("log_probs", "entropy", "is_top1", "label_mask"):
        torch.testing.assert_close(ours_out[name], theirs[name], check_dtype=False, msg=name)
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_a_batch_without_trained_tokens_is_a_differentiable_zero():
    ids, labels = rows()
    model = model_with_head(ours=True)
    out = model(input_ids=ids, labels=torch.full_like(labels, IGNORED), fused_lm_head=True)
    out.log_probs.sum().backward()
    assert out.log_probs.sum() == 0


def test_without_the_flag_a_model_answers_as_before():
    ids, labels = rows()
    plain, ours = (model_with_head(ours=flag)(input_ids=ids, labels=labels) for flag in (False, True))
    torch.testing.assert_close(ours.logits, plain.logits)
    torch.testing.assert_close(ours.loss, plain.loss)


@pytest.mark.parametrize("config", [{"logit_scale": 0.5}, {"final_logit_softcapping": 30.0}])
def test_scaled_logits_keep_the_other_head(config):
    ids, labels = rows()
    found = [
        model_with_head(ours=flag, **config)(input_ids=ids, labels=labels, fused_lm_head=True).log_probs
        for flag in (False, True)
    ]
    assert torch.equal(*found)


def test_models_whose_router_loss_the_other_head_computes_keep_it():
    torch.manual_seed(0)
    config = AutoConfig.for_model("mixtral", hidden_size=24, intermediate_size=32, num_hidden_layers=1)
    config.update({"num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 50})
    config.output_router_logits = True
    model = AutoModelForCausalLM.from_config(config)
    add_fused_lm_head(model, outputs=("log_probs",))
    before = model.forward
    use_cpu_head(model)
    assert model.forward == before
