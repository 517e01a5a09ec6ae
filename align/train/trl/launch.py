"""Several training processes: on this machine through torch's elastic launcher, on a Ray cluster as actors.

Under torchrun the processes exist already and nothing is launched.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from align.config.recipe import TrlRecipe
from align.config.run import ClusterConfig
from align.errors import EngineError
from align.train.interrupt import ask_to_stop


def starts_processes(recipe: TrlRecipe) -> bool:
    """Whether this process is to start those that train: several are asked for and it is none of them."""
    return recipe.cluster.processes > 1 and "LOCAL_RANK" not in os.environ


def train_or_launch(
    recipe: Any, prepared: Any, train: Callable[..., None], launched: Callable[..., None], *, resume: bool
) -> None:
    """Train in this process, or in ``cluster.processes`` of their own: on the Ray cluster that the recipe
    names, else here through torch's elastic launcher. Started by torchrun, this process is one of them.

    Args:
        recipe: the run.
        prepared: its data.
        train: ``train(recipe, prepared, resume=…)``, the part of every training process.
        launched: what a started process does, see :func:`launch`.
        resume: continue from the latest checkpoint.

    Raises:
        EngineError: a process failed.
    """
    if recipe.cluster.ray_address and "LOCAL_RANK" not in os.environ:
        from align.cluster.training_ranks import train_on_cluster  # Ray takes seconds to import

        train_on_cluster(launched, recipe, prepared, resume=resume, ask_to_stop=ask_to_stop)
    elif starts_processes(recipe):
        launch(launched, recipe, prepared, resume=resume)
    else:
        train(recipe, prepared, resume=resume)


def first_process() -> bool:
    """Whether this process is the first of those that train."""
    return int(os.environ.get("RANK", "0")) == 0


def share_threads(cluster: ClusterConfig) -> None:
    """Give this process its part of the machine's cores."""
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(max(1, (cluster.threads or os.cpu_count() or 1) // neighbours))


def launch(work: Callable[[Any, bool, Path], None], recipe: TrlRecipe, data: Any, *, resume: bool) -> None:
    """Run ``work`` in ``cluster.processes`` processes and wait for them.

    Args:
        work: what each process does with the recipe, ``resume`` and the folder of the prepared data; a
            module's function.
        recipe: the run.
        data: prepared once, here: ``data.save(folder)`` writes it where the processes read it.
        resume: continue from the latest checkpoint.

    Raises:
        EngineError: a process failed.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=recipe.cluster.processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=recipe.name,
        max_restarts=0,
        monitor_interval=0.2,
    )
    with TemporaryDirectory(prefix=f"align-{recipe.kind}-") as folder:
        data.save(Path(folder))
        try:
            elastic_launch(settings, work)(recipe, resume, Path(folder))
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            raise EngineError(
                f"training process {rank} failed with exit status {failure.exitcode}; "
                "its own message is above",
                file=recipe.directory,
                remedy="mend the cause, then continue with --resume",
            ) from error
