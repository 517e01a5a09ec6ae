"""What vLLM is imported and started with on each kind of device."""

from __future__ import annotations

import importlib
import os
from typing import Any

import torch._dynamo

from align.config.rollout import RolloutConfig
from align.rollout.fp32_gate import use_fp32_gates


def import_engine(settings: RolloutConfig, device: str) -> None:
    """Import vLLM as an :class:`Engine` of these settings needs it."""
    prepare_environment(settings, device)
    importlib.import_module("vllm")


def prepare_environment(settings: RolloutConfig, device: str) -> None:
    """What vLLM reads when it is imported or started."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    if device == "cpu":
        if not settings.compile:
            # Small helpers of the sampler are compiled even in eager mode: seconds each, for nothing.
            torch._dynamo.config.disable = True
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(settings.kv_cache_gib)))
        os.environ.setdefault("VLLM_USE_AOT_COMPILE", "0")  # its cached artefacts fail to load
        use_fp32_gates()


def cpu_blocks(model: str, trust_remote_code: bool) -> dict[str, Any]:
    """Size of the KV cache's blocks, tokens.

    A group shares the whole blocks of its prompt. vLLM's 128 on a CPU are longer than many a prompt, which
    is then computed G times; its kernels want multiples of 32. For MLA vLLM takes 16 of itself.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code).get_text_config()
    return {} if getattr(config, "kv_lora_rank", None) else {"block_size": 32}


def device_arguments(settings: RolloutConfig, device: str, max_model_len: int) -> dict[str, Any]:
    """Arguments of vLLM's ``LLM`` that a device wants."""
    if device == "cpu":
        return {
            # The CPU's own rotary kernel misreads MLA's shapes; the native one is right.
            "compilation_config": {"custom_ops": ["-rotary_embedding"]},
            # Of MLA the same kernel on every machine: where the CPU has AMX vLLM takes one that computes in
            # bf16 only and empties kv_b_proj, into which pushes go. Other models do not look at it.
            "attention_backend": "CPU_MLA",
            # A prompt prefilled in pieces rewinds its seeded generator, which a CPU one cannot do.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(4096, max_model_len),
        }
    return {"gpu_memory_utilization": settings.gpu_memory_utilization}
