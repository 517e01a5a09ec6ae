from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, DeepseekV2ForCausalLM, LlamaConfig, LlamaForCausalLM

from align.config.policy import LoraConfig
from align.errors import ModelError
from align.model.experts.routers import RouterRecorder, find_routers, is_moe
from align.model.files.lora import add_lora

IDS = torch.arange(2 * 9).view(2, 9) % 50


@pytest.fixture
def moe_model(deepseek_v2: Any) -> Any:
    """Makes one, by its top-k method; the weights are always the same."""

    def make(method: str = "greedy") -> Any:
        torch.manual_seed(0)
        settings = deepseek_v2(vocab_size=64, n_routed_experts=8, topk_method=method, n_group=4)
        return DeepseekV2ForCausalLM(AutoConfig.for_model(**settings))

    return make


def dense_model() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
        )
    )


def test_is_moe(moe_model: Any):
    assert is_moe(moe_model().config)
    assert not is_moe(dense_model().config)


def test_records_what_transformers_itself_reports(moe_model: Any):
    model = moe_model()
    recorder = RouterRecorder(model)
    with recorder.record():
        reported = model(input_ids=IDS, output_router_logits=True).router_logits
    routing = recorder.routing(rows=2)
    assert routing.logits_LBSE.shape == (2, 2, 9, 8)  # two MoE layers: the first layer is dense
    assert routing.logits_LBSE.dtype == torch.float32
    assert torch.equal(routing.logits_LBSE.flatten(1, 2), torch.stack(reported))
    assert routing.logits_LBSE.requires_grad


def test_router_logits_stay_fp32_in_a_bf16_model(moe_model: Any):
    model = moe_model().bfloat16()
    recorder = RouterRecorder(model)
    with recorder.record():
        model(input_ids=IDS)
    assert recorder.routing(rows=2).logits_LBSE.dtype == torch.float32


def test_device_limited_choices_stay_inside_one_group(moe_model: Any):
    model = moe_model("group_limited_greedy")
    recorder = RouterRecorder(model)
    with recorder.record():
        model(input_ids=IDS)
    selected = recorder.routing(rows=2).selected_LBSK
    assert selected.shape == (2, 2, 9, 2)
    assert torch.equal(selected[..., 0] // 2, selected[..., 1] // 2)


def test_nothing_is_kept_outside_record(moe_model: Any):
    model = moe_model()
    recorder = RouterRecorder(model)
    model(input_ids=IDS)
    with recorder.record():
        model(input_ids=IDS[:1])
    model(input_ids=IDS)
    assert recorder.routing(rows=1).selected_LBSK.shape == (2, 1, 9, 2)


def test_gradient_checkpointing_gives_the_same_gradient(moe_model: Any):
    gradients = []
    for checkpointing in (False, True):
        model = moe_model()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        recorder = RouterRecorder(model)
        with recorder.record():
            model(input_ids=IDS, use_cache=False)
        recorder.routing(rows=2).logits_LBSE.square().mean().backward()
        gradients.append(model.model.layers[1].self_attn.q_proj.weight.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[0], gradients[1])


def test_under_lora_routers_are_found_and_left_alone(moe_model: Any):
    model = add_lora(moe_model(), LoraConfig(rank=2))
    assert len(find_routers(model)) == 2
    adapted = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(".gate." in name or ".experts.gate_up" in name for name in adapted)
    assert any("kv_b_proj" in name for name in adapted)
    recorder = RouterRecorder(model)
    with recorder.record():
        model(input_ids=IDS)
    assert recorder.routing(rows=2).logits_LBSE.shape == (2, 2, 9, 8)


def test_a_dense_model_is_refused():
    with pytest.raises(ModelError, match="balance_alpha"):
        RouterRecorder(dense_model())
