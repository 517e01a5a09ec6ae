"""vLLM sampling parameters for each use of the engine."""

from __future__ import annotations

from typing import Any

from align.config.rollout import RolloutConfig
from align.seed import derive_seed

LIKELIEST = 20  # tokens; vLLM gives no more by default


def group_params(
    settings: RolloutConfig,
    run_seed: int,
    step: int,
    prompt_id: str,
    sample_index: int,
    eos: int,
    begun: int = 0,
) -> Any:
    """Parameters of one member of a group, seeded by (run seed, step, prompt id, sample index).

    ``begun`` tokens of it, which earlier steps sampled, count towards ``max_new_tokens``.
    """
    left = settings.max_new_tokens - begun
    return _params(
        max_tokens=min(left, settings.partial_tokens or left),
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=derive_seed(run_seed, step, prompt_id, sample_index),
        logprobs=0,
        stop_token_ids=[eos],
    )


def greedy_params(max_new_tokens: int, temperature: float, run_seed: int, prompt_id: str, eos: int) -> Any:
    """Parameters of a held-out answer."""
    return _params(
        max_tokens=max_new_tokens,
        temperature=temperature,
        seed=derive_seed(run_seed, "answer", prompt_id) if temperature > 0 else None,
        stop_token_ids=[eos],
    )


def probe_params() -> Any:
    """Score a prompt; the one token that must be sampled is ignored."""
    return _params(max_tokens=1, temperature=0.0, prompt_logprobs=0)


def decode_probe_params(count: int) -> Any:
    """Write that many tokens greedily and say how likely the likeliest were at each."""
    return _params(max_tokens=count, temperature=0.0, logprobs=LIKELIEST, ignore_eos=True)


def scored_params() -> Any:
    """As :func:`probe_params`, with the likeliest tokens of each position."""
    return _params(max_tokens=1, temperature=0.0, prompt_logprobs=LIKELIEST)


def _params(**arguments: Any) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    # Text is decoded once at the end, not token by token.
    return SamplingParams(detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY, **arguments)
