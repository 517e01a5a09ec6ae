import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM


@pytest.fixture
def tiny_moe(deepseek_v2):
    """A small DeepSeek-V2 whose latent has the true width, fp32, fresh weights."""
    settings = deepseek_v2(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=96,
        moe_intermediate_size=32,
        kv_lora_rank=512,
        qk_nope_head_dim=32,
        qk_rope_head_dim=64,
        v_head_dim=32,
        n_shared_experts=2,
        max_position_embeddings=128,
    )
    config = AutoConfig.for_model(**settings)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
