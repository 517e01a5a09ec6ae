import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from align.config.policy import LoraConfig
from align.model.files.hf_stream import hf_stream
from align.model.files.lora import add_lora


def test_names_and_values_are_those_of_a_saved_checkpoint(tiny_moe, tmp_path):
    tiny_moe.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    streamed = dict(hf_stream(tiny_moe))
    assert streamed.keys() == saved.keys()
    for name, tensor in saved.items():
        assert torch.equal(streamed[name], tensor), name


def test_merged_adapters_compute_the_same(tiny_moe, tmp_path):
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    model = add_lora(tiny_moe, LoraConfig(rank=4))
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert names
    assert all(".lora_" in name for name in names)
    assert not any(".mlp." in name for name in names)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at the start, which would make the test empty
                parameter.normal_(std=0.2)
        expected = model(input_ids=ids).logits
        with model.disable_adapter():
            assert not torch.allclose(model(input_ids=ids).logits, expected, atol=1e-3)
    plain = AutoModelForCausalLM.from_config(tiny_moe.config, dtype=torch.float32)
    plain.save_pretrained(tmp_path)
    from safetensors.torch import save_file

    save_file({name: t.contiguous() for name, t in hf_stream(model)}, tmp_path / "model.safetensors")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
