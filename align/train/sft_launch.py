"""Several training processes on this machine, through torch's elastic launcher.

Under torchrun (several machines) the processes exist already and nothing is launched.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from align.config.recipe import SftRecipe
from align.errors import EngineError


def in_launched_process() -> bool:
    """Whether a launcher started this process."""
    return "LOCAL_RANK" in os.environ


Work = Callable[[SftRecipe, bool, Path], None]
"""What each process does with recipe, ``resume`` and the folder of prepared rows; a module's function."""


def launch(work: Work, recipe: SftRecipe, *, resume: bool, data: Path) -> None:
    """Run ``work`` in ``cluster.processes`` processes and wait for them.

    Args:
        work: what each process does.
        recipe: the run.
        resume: continue from the latest checkpoint.
        data: where the prepared rows were saved.

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
    try:
        elastic_launch(settings, work)(recipe, resume, data)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise EngineError(
            f"training process {rank} failed with exit status {failure.exitcode}; its own message is above",
            file=recipe.directory,
            remedy="mend the cause, then continue with --resume",
        ) from error
