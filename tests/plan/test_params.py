from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from align.config.policy import LoraConfig
from align.errors import ModelError
from align.model.files.lora import add_lora
from align.plan.memory import kv_bytes_per_token, lora_parameters
from align.plan.params import known_shape, read_shape
from align.plan.source import known_models, read_config

LITE, V2 = "deepseek-ai/DeepSeek-V2-Lite", "deepseek-ai/DeepSeek-V2"

FLAGS = ("tie_word_embeddings", "attention_bias", "mlp_bias")
TINY = {
    "deepseek_v2": {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "moe_intermediate_size": 12,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "kv_lora_rank": 16,
        "q_lora_rank": 10,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 6,
        "n_routed_experts": 8,
        "n_shared_experts": 2,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
    },
    "llama": {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


def built(config: dict[str, Any]) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


def count(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


def test_published_shapes():
    lite, v2 = read_shape(read_config(LITE)), read_shape(read_config(V2))
    assert lite.total == 15_706_484_224
    assert v2.total == 235_741_434_880
    assert round(lite.active / 1e9, 2) == 2.66
    assert round(lite.active_without_embedding / 1e9, 2) == 2.45
    assert round(v2.active / 1e9, 2) == 21.38
    assert round(v2.active_without_embedding / 1e9, 2) == 20.85


def test_published_kv_cache():
    assert kv_bytes_per_token(read_shape(read_config(V2))) == 69_120
    assert kv_bytes_per_token(read_shape(read_config(LITE))) == 31_104


def test_the_shipped_lite_shape_is_what_transformers_builds():
    assert count(built(read_config(LITE))) == read_shape(read_config(LITE)).total


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize("change", [{}, *({name: True} for name in FLAGS)])
def test_counts_equal_a_built_model(family: str, change: dict[str, Any]):
    if family == "deepseek_v2" and "mlp_bias" in change:
        pytest.skip("no released model of this family has MLP biases")
    config = {"model_type": family, **TINY[family], **change}
    shape = read_shape(config)
    assert shape.total == count(built(config))
    layers = sum(shape.layer(index) for index in range(shape.layers))
    assert layers + shape.hidden + shape.embedding * (1 if shape.tied else 2) == shape.total


def test_without_query_compression_and_without_experts():
    for change in ({"q_lora_rank": None}, {"first_k_dense_replace": 4}, {"num_key_value_heads": 2}):
        config = {"model_type": "deepseek_v2", **TINY["deepseek_v2"], **change}
        assert read_shape(config).total == count(built(config))


@pytest.mark.parametrize("family", TINY)
def test_lora_count_equals_peft(family: str):
    config = {"model_type": family, **TINY[family]}
    lora = LoraConfig(rank=3)
    model = add_lora(AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)), lora)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert lora_parameters(read_shape(config), lora) == trained


def test_known_models():
    assert known_models() == [V2, LITE]


def test_a_run_directory_stands_for_its_final_model(tmp_path: Path):
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "config.json").write_text('{"model_type": "llama"}')
    assert read_config(str(tmp_path)) == {"model_type": "llama"}


def test_an_unknown_model_is_one_clear_error(tmp_path: Path):
    with pytest.raises(ModelError, match=r"no config\.json") as caught:
        read_config("nobody/nothing")
    assert caught.value.remedy is not None
    assert LITE in caught.value.remedy


def test_an_unknown_family():
    with pytest.raises(ModelError, match="gpt2"):
        read_shape({"model_type": "gpt2"})


def test_a_missing_key_is_named():
    with pytest.raises(ModelError, match="hidden_size"):
        read_shape({"model_type": "llama", "num_attention_heads": 2})


def test_broken_json(tmp_path: Path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        read_config(str(tmp_path))


def test_a_family_without_a_plan_is_no_fault_of_the_model() -> None:
    shape, why = known_shape({"model_type": "qwen3"})
    assert shape is None
    assert why == "no plan for models of type 'qwen3'"
    with pytest.raises(ModelError, match="has no 'hidden_size'"):
        known_shape({"model_type": "llama"})
