"""Adapters go to the attention alone wherever experts are routed."""

import pytest
import torch

from align.config.policy import LoraConfig, PolicyConfig
from align.errors import RecipeError
from align.model.experts.routers import expert_kernel, is_moe
from align.model.files.load import load_model
from align.model.files.lora import add_lora

ATTENTION = {
    "deepseek_v2": {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"},
    "deepseek_v3": {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"},
}
QKVO = {"q_proj", "k_proj", "v_proj", "o_proj"}
MOE = [
    "mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss", "granitemoe", "granitemoeshared", "glm4_moe",
    "ernie4_5_moe", "minimax", "minimax_m2", "deepseek_v2", "deepseek_v3",
]  # fmt: skip


def adapted(model):
    return {name.removesuffix(".lora_A.default") for name, _ in model.named_modules() if "lora_A.d" in name}


@pytest.mark.parametrize("name", MOE)
def test_only_the_attention_of_a_moe_gets_adapters(name, family):
    model = add_lora(family(name), LoraConfig(rank=2))
    found = adapted(model)
    assert all(".self_attn." in each for each in found)
    known = ATTENTION.get(name, QKVO)
    assert {each.rpartition(".")[2] for each in found} >= known - {"k_proj", "v_proj"}
    out = model(input_ids=torch.tensor([[3, 4, 5]]), labels=torch.tensor([[3, 4, 5]]))
    out.loss.backward()
    trained = [(each, weight) for each, weight in model.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora_" in each and weight.grad is not None for each, weight in trained)
    assert all(weight.grad.any() for each, weight in trained if "lora_B" in each)


@pytest.mark.parametrize(("name", "target"), [("mixtral", "gate"), ("qwen2_moe", "shared_expert_gate")])
def test_a_router_is_no_target(name, target, family):
    with pytest.raises(RecipeError, match="no linear layer called"):
        add_lora(family(name), LoraConfig(rank=2, target_modules=[target]))


@pytest.mark.parametrize("name", ["llama", "qwen2", "phi3"])
def test_a_dense_model_gets_adapters_in_its_mlp_too(name, family):
    assert any(".mlp." in each for each in adapted(add_lora(family(name), LoraConfig(rank=2))))


def test_every_family_is_told_for_what_it_is(every_family, family):
    assert is_moe(family(every_family).config) == (every_family in MOE)


@pytest.mark.parametrize("name", MOE)
@pytest.mark.parametrize("kernel", ["eager", "grouped_mm"])
def test_the_kernel_of_the_recipe_is_that_of_the_experts(name, kernel, family, tmp_path):
    family(name).save_pretrained(tmp_path)
    policy = PolicyConfig(path=str(tmp_path), dtype="float32", experts=kernel, gradient_checkpointing=False)
    for init in ("pretrained", "random"):
        model = load_model(policy.model_copy(update={"init": init}), seed=1)
        assert model.config._experts_implementation == kernel


def test_a_dense_model_has_no_kernel_of_experts(family):
    assert expert_kernel(family("llama").config, "eager") == {}
