"""Model directories that transformers and vLLM load unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from align.model.hf_stream import hf_stream


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write weights (adapters merged, experts apart), configuration and tokenizer.

    The weights go through the same stream that feeds the rollout engine.

    Args:
        model: a transformers model, or a peft model around one.
        tokenizer: its tokenizer, chat template included.
        folder: made if missing.
    """
    from huggingface_hub import save_torch_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    # Split experts are views of one storage, which safetensors refuses.
    state = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in hf_stream(model)}
    save_torch_state_dict(state, folder, max_shard_size="5GB")
    config = base.config.__class__.from_dict(base.config.to_dict())
    config.architectures = [type(base).__name__]
    config.dtype = next(base.parameters()).dtype
    config.use_cache = True
    config.save_pretrained(folder)
    if base.generation_config is not None:
        base.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
