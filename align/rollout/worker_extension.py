"""Loading new weights into a running vLLM worker.

vLLM instantiates this class beside its own worker (``worker_extension_cls``); the methods run in
every worker process through ``collective_rpc``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

WeightSource = Callable[[], Iterable[tuple[str, Tensor]]]
"""Opens one pass over (checkpoint name, tensor) pairs; picklable, so that it reaches any worker."""


class WeightReceiver:
    """Mixed into vLLM's worker; ``self.model_runner`` is vLLM's."""

    model_runner: Any

    def load_policy_weights(self, source: WeightSource) -> None:
        """Replace every weight in place, then rebuild what vLLM derives from weights.

        vLLM's own reload leaves two things stale on a CPU: packed expert kernels (they are built
        once and kept) and a tied output head (it is packed apart from the embedding).
        """
        model = self.model_runner.get_model()
        for module in model.modules():
            if hasattr(module, "w13_weight"):
                module.quant_method.moe_kernel = None
        self.model_runner.reload_weights(weights_iterator=source())
        head = getattr(model, "lm_head", None)
        if head is not None and self.model_runner.model_config.hf_text_config.tie_word_embeddings:
            head.quant_method.process_weights_after_loading(head)
