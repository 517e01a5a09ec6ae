"""Ray: joining or starting a cluster, and where the actors go on it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from align.config.run import ClusterConfig
from align.errors import EngineError


@dataclass(frozen=True, slots=True)
class Placement:
    """One bundle for a trainer and its engine, which take turns on it (hybrid engine)."""

    device: str
    """``cpu`` or ``cuda``."""
    threads: int
    """CPU threads of the actor whose turn it is."""
    group: Any

    def options(self, **extra: Any) -> dict[str, Any]:
        """Ray options of an actor inside the bundle.

        Trainer and engine share the device, and so do reward models, so each asks for a small
        share of the GPU and no CPU. Ray sets
        OMP_NUM_THREADS to 1 for such actors unless told otherwise, which would halve everything.
        """
        return {
            "num_cpus": 0,
            "num_gpus": 0.1 if self.device == "cuda" else 0,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(self.threads)}},
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                self.group, placement_group_bundle_index=0
            ),
            **extra,
        }


@contextmanager
def cluster(config: ClusterConfig) -> Iterator[Placement]:
    """Join or start Ray, reserve one bundle, and give both back at the end.

    Raises:
        EngineError: no cluster at the address, or the bundle cannot be placed.
    """
    threads = config.threads or os.cpu_count() or 1
    try:
        ray.init(
            address=config.ray_address,
            num_cpus=None if config.ray_address else threads,
            include_dashboard=False if config.ray_address is None else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"Ray is not reachable: {error}",
            key="cluster.ray_address",
            remedy="start it with `ray start --head`, or leave ray_address out to use this machine",
        ) from error
    try:
        device = _device(config)
        bundle = {"CPU": 1.0, "GPU": 1.0} if device == "cuda" else {"CPU": 1.0}
        group = placement_group([bundle], strategy="PACK")
        if not group.wait(timeout_seconds=60):
            raise EngineError(
                f"Ray has no free slot for {bundle} (it has {ray.cluster_resources()})",
                key="cluster",
                remedy="stop other runs on this cluster, or add a machine",
            )
        yield Placement(device, threads, group)
        remove_placement_group(group)
    finally:
        ray.shutdown()


def _device(config: ClusterConfig) -> str:
    if config.device != "auto":
        return config.device
    return "cuda" if ray.cluster_resources().get("GPU", 0) >= 1 else "cpu"
