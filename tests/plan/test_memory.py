from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from align.plan.memory import TrainState, activations, trainer_memory
from align.plan.params import read_shape
from align.plan.source import read_config

LITE = read_shape(read_config("deepseek-ai/DeepSeek-V2-Lite"))
N = LITE.total


def state(**change: Any) -> TrainState:
    settings = {"dtype": "bfloat16", "devices": 1, "trainable": N, "tokens": 4096, "checkpointing": True}
    return TrainState(**{**settings, **change})


def fixed(memory: dict[str, int]) -> int:
    return sum(size for kind, size in memory.items() if "activations" not in kind)


def test_one_device_in_bf16_is_18_bytes_a_parameter():
    memory = trainer_memory(LITE, state())
    assert memory["weights"] == 2 * N
    assert memory["master weights"] == 4 * N
    assert fixed(memory) == 18 * N


def test_one_device_in_fp32_is_16_bytes_a_parameter():
    memory = trainer_memory(LITE, state(dtype="float32"))
    assert "master weights" not in memory
    assert fixed(memory) == 16 * N


def test_eight_devices_hold_an_eighth_each_and_two_layers():
    memory = trainer_memory(LITE, state(devices=8))
    gathered = memory["gathered layers"]
    assert gathered == 2 * 2 * LITE.layer(26)
    assert fixed(memory) - gathered == pytest.approx(16 * N / 8, rel=1e-6)


def test_adapters_need_gradients_of_adapters_only():
    memory = trainer_memory(LITE, state(trainable=1000))
    assert memory["weights"] == 2 * N
    assert fixed(memory) - memory["weights"] == 16 * 1000


def test_checkpointing_saves_activations():
    assert activations(LITE, 4096, 2, True) < activations(LITE, 4096, 2, False) / 5


@pytest.mark.parametrize(
    "config",
    [
        {
            "model_type": "deepseek_v2",
            "vocab_size": 64,
            "hidden_size": 128,
            "intermediate_size": 256,
            "moe_intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "kv_lora_rank": 64,
            "q_lora_rank": None,
            "qk_nope_head_dim": 16,  # as wide as the values: the CPU kernel then keeps no scores
            "qk_rope_head_dim": 16,
            "v_head_dim": 32,
            "n_routed_experts": 8,
            "n_shared_experts": 2,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 1,
        },
        {
            "model_type": "llama",
            "vocab_size": 64,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
        },
    ],
    ids=["moe", "dense"],
)
def test_the_estimate_is_near_what_autograd_keeps(config: dict[str, Any]):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model.model(input_ids=torch.randint(0, 64, (2, 128)), use_cache=False).last_hidden_state
    measured = sum(kept.values())
    estimate = activations(read_shape(config), 256, 2, False)
    assert out.shape == (2, 128, 128)
    assert 0.6 < estimate / measured < 1.5
