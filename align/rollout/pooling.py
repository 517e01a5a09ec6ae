"""vLLM as the back end of a reward model: its pooling runner, which reads rows and writes no tokens.

As with the rollout engine, the process that makes it must do nothing else with torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.config.policy import Dtype
from align.config.rollout import RolloutConfig
from align.errors import EngineError
from align.rollout.start import device_arguments, prepare_environment


class PoolingScorer:
    """A sequence classifier with one label in a vLLM engine (``align.model.score.scorer.Scorer``)."""

    def __init__(
        self, model: str, *, device: str, dtype: Dtype = "bfloat16", max_tokens: int, moe: bool = False
    ) -> None:
        """Start the engine.

        Args:
            model: model directory or hub id.
            device: ``cpu`` or ``cuda``.
            dtype: type of the weights; vLLM computes the head in fp32.
            max_tokens: longest row.
            moe: the model routes to experts.

        Raises:
            EngineError: vLLM refuses the model.
        """
        settings = RolloutConfig(kv_cache_gib=1, gpu_memory_utilization=0.3)
        prepare_environment(settings, device)
        from vllm import LLM, PoolingParams

        self.max_tokens = max_tokens
        self._sleeps = device != "cpu"
        self._params = PoolingParams(use_activation=False)
        try:
            self.llm: Any = LLM(
                model=model,
                runner="pooling",
                dtype=dtype,
                max_model_len=max_tokens,
                max_num_seqs=settings.max_num_seqs,
                enforce_eager=True,
                enable_sleep_mode=self._sleeps,
                # vLLM's gate follows the model's type unless told what transformers does.
                hf_overrides={"moe_router_dtype": "float32"} if moe else {},
                disable_log_stats=True,
                **device_arguments(settings, device, max_tokens),
            )
        except Exception as error:  # vLLM's own errors have no common base with Python's
            reason = (str(error).strip() or type(error).__name__).splitlines()
            raise EngineError(
                f"vLLM could not start the reward model: {reason[-1]}",
                file=model,
                remedy="serve it on torch instead",
            ) from error

    def wake(self) -> None:
        """Put the weights on the device; the CPU engine cannot sleep."""
        if self._sleeps:
            self.llm.wake_up()

    def sleep(self) -> None:
        """Free the device: the weights wait in main memory."""
        if self._sleeps:
            self.llm.sleep(level=1)

    def score(self, rows: Sequence[Sequence[int]], prompts: Sequence[str]) -> list[float]:
        """One raw score a row, in order; the engine finds out by itself which rows begin alike."""
        inputs = [{"prompt_token_ids": list(row)} for row in rows]
        outputs = self.llm.classify(inputs, pooling_params=self._params, use_tqdm=False)
        return [float(output.outputs.probs[0]) for output in outputs]
