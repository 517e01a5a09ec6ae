"""Loading new weights into a running vLLM worker, and freeing what it holds.

vLLM instantiates this class beside its own worker (``worker_extension_cls``); the methods run in
every worker process through ``collective_rpc``.
"""

from __future__ import annotations

from typing import Any

from align.rollout import absorbed, sleep
from align.rollout.inplace import InPlaceLoader
from align.rollout.routing_capture import RoutingReporter
from align.rollout.weight_source import WeightSource
from align.rollout.workers import set_up_worker

set_up_worker()  # this module is the first of ours that a worker imports, before it builds the model


class WeightReceiver(RoutingReporter):
    """Mixed into vLLM's worker; ``self.model_runner`` and ``self.rank`` are vLLM's."""

    model_runner: Any
    rank: int
    _loader: InPlaceLoader | None = None

    def load_policy_weights(self, source: WeightSource) -> None:
        """Take over what the source has, in place; what comes of a push is checked with its last bucket.

        Raises:
            SyncError: not all of it came, or something derived from weights is stale.
        """
        self._loader = self._loader or InPlaceLoader(self.model_runner)
        self._loader.load(source, self.rank)
        if not source.last:
            return
        model = self.model_runner.get_model()
        sleep.check_filled(model)
        absorbed.check_absorbed(model, self.model_runner.model_config.dtype)

    def free_kv_cache(self) -> None:
        sleep.free_kv_cache(self.model_runner)

    def free_weights(self) -> None:
        sleep.free_weights(self.model_runner.get_model())
