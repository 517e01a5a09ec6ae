"""Written weights are those that come back, in every architecture."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from align.config.policy import LoraConfig, PolicyConfig
from align.model.files.check import check_model
from align.model.files.hf_stream import adapted_tensors, hf_stream
from align.model.files.load import load_model
from align.model.files.lora import add_lora
from align.model.files.save import save_model
from align.model.score.head import load_score_model

IDS = torch.tensor([[5, 9, 40, 7, 20, 31, 3]])


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def same(one, other):
    """Both compute the same, but for what a kernel rounds otherwise where its operands lie otherwise."""
    torch.testing.assert_close(logits(one), logits(other), rtol=0, atol=1e-6)


def test_saved_and_loaded_it_computes_the_same(every_family, family, vocabulary, tmp_path):
    model = family(every_family)
    save_model(model, vocabulary(96), tmp_path)
    policy = PolicyConfig(path=str(tmp_path), dtype="float32", experts="eager")
    check_model(policy)
    check_model(policy.model_copy(update={"init": "random"}))
    again = load_model(policy, seed=1)
    same(again, model)
    assert {name for name, _ in hf_stream(again)} == {name for name, _ in hf_stream(model)}
    same(AutoModelForCausalLM.from_pretrained(tmp_path), model)


def test_names_are_those_that_transformers_writes(every_family, family, tmp_path):
    model = family(every_family)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    streamed = dict(hf_stream(model))
    assert streamed.keys() == saved.keys()
    for tensor in saved:
        assert torch.equal(streamed[tensor], saved[tensor]), tensor


def test_nothing_is_copied(every_family, family):
    model = family(every_family)
    places = {each.untyped_storage().data_ptr() for each in model.state_dict().values()}
    for _ in range(2):  # the second time plain names are known
        streamed = list(hf_stream(model))
        assert {each.untyped_storage().data_ptr() for _, each in streamed} == places
        assert len({tensor for tensor, _ in streamed}) == len(streamed)


@pytest.mark.parametrize("name", ["llama", "mixtral", "deepseek_v2"])
def test_a_reward_model_comes_back_with_its_head(name, family, vocabulary, tmp_path):
    family(name).save_pretrained(tmp_path / "policy")
    policy = PolicyConfig(path=str(tmp_path / "policy"), dtype="float32", experts="eager")
    model = load_score_model(policy, seed=1, pad=2).eval()
    torch.nn.init.normal_(model.score.weight)
    save_model(model, vocabulary(96), tmp_path / "reward")
    again = policy.model_copy(update={"path": str(tmp_path / "reward")})
    check_model(again, score=True)
    same(load_score_model(again, seed=1, pad=2).eval(), model)


def test_names_of_a_mixtral_are_its_own(family):
    names = {name for name, _ in hf_stream(family("mixtral"))}
    assert {f"model.layers.1.block_sparse_moe.experts.3.w{each}.weight" for each in (1, 2, 3)} < names
    assert "model.layers.0.block_sparse_moe.gate.weight" in names


def test_the_correction_bias_of_a_deepseek_v3_keeps_its_precision(family, vocabulary, tmp_path):
    model = family("deepseek_v3").bfloat16()
    bias = model.model.layers[1].mlp.gate.e_score_correction_bias = torch.tensor([1.0, 1.001, 1.002, 1.003])
    save_model(model, vocabulary(96), tmp_path)
    saved = load_file(tmp_path / "model.safetensors")["model.layers.1.mlp.gate.e_score_correction_bias"]
    assert torch.equal(saved, bias)


@pytest.mark.parametrize("name", ["llama", "mixtral", "deepseek_v3"])
def test_with_adapters_a_push_of_what_changed_holds_every_adapted_weight(name, family):
    model = add_lora(family(name), LoraConfig(rank=2, target_modules=["o_proj"]))
    whole = {tensor for tensor, _ in hf_stream(model)}
    changed = {tensor for tensor, _ in hf_stream(model, changed_only=True)}
    adapted = adapted_tensors(model)
    assert adapted == {f"model.layers.{layer}.self_attn.o_proj.weight" for layer in (0, 1)}
    assert adapted < changed < whole
    assert all(".self_attn." in tensor for tensor in changed)


def test_weights_may_be_read_like_their_neighbours(family, vocabulary, tmp_path):
    save_model(family("llama"), vocabulary(96), tmp_path)
    assert len({file.stat().st_mode for file in tmp_path.iterdir()}) == 1
