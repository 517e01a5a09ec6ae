"""Small random models of the families that transformers and vLLM both have."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
TOP_2 = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
MLA = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    **TOP_2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {},
    "mistral": {"sliding_window": None},
    "gemma2": {},
    "gemma3_text": {},
    "phi3": {},
    "granite": {},
    "olmo2": {},
    "gpt_neox": {},
    "gemma": {"hidden_act": "gelu_pytorch_tanh"},
    "glm4": {},
    "ernie4_5": {},
    "gpt2": {"n_inner": 48},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "stablelm": {},
    "nemotron": {},
    "qwen3_moe": {"num_experts": 4, **TOP_2},
    "qwen2_moe": {"num_experts": 4, "shared_expert_intermediate_size": 16, **TOP_2},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "minimax": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "minimax_m2": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "scoring_func": "sigmoid",
        "use_routing_bias": True,
    },
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoeshared": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 16,
    },
    "glm4_moe": {"n_routed_experts": 4, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, **TOP_2},
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 16},
    "deepseek_v2": {"topk_method": "greedy", **MLA},
    "deepseek_v3": {"topk_method": "noaux_tc", "scoring_func": "sigmoid", **MLA},
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for ``every_family`` runs once for the name of each."""
    if "every_family" in metafunc.fixturenames:
        metafunc.parametrize("every_family", FAMILIES)


@pytest.fixture(scope="session")
def family() -> Callable[..., Any]:
    """``family("mixtral", vocab_size=97)``: a model in fp32 whose every saved tensor is random."""

    def build(name: str, **changes: Any) -> Any:
        config = AutoConfig.for_model(name, **(SIZES | FAMILIES[name] | changes))
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.dim() < 2 or not tensor.any():  # what starts as ones or zeros would hide a loss
                    tensor.normal_(std=0.1)
        return model

    return build


@pytest.fixture(scope="session")
def vocabulary() -> Callable[[int], PreTrainedTokenizerFast]:
    """``vocabulary(96)``: a tokenizer of so many tokens, the second of which ends a sequence."""

    def build(size: int) -> PreTrainedTokenizerFast:
        inner = Tokenizer(models.WordLevel({f"w{index}": index for index in range(size)}, unk_token="w2"))
        inner.pre_tokenizer = pre_tokenizers.Whitespace()
        return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="w1", unk_token="w2")

    return build
