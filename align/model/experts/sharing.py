"""Whether the routed experts of a policy can be shared by so many ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.errors import RecipeError
from align.model.experts.routers import experts_of


def check_expert_parallel(config: Any, size: int, *, file: Path | None = None) -> None:
    """Whether ``cluster.expert_parallel`` fits a transformers configuration; ``file`` is the recipe's.

    Raises:
        RecipeError: so many ranks cannot share the experts of a layer evenly, or there are none.
    """
    experts = experts_of(config)
    if size == 1 or (experts and experts % size == 0):
        return
    if not experts:
        raise RecipeError(
            f"{config.model_type} policies have no routed experts that ranks could share",
            file=file,
            key="cluster.expert_parallel",
            remedy="leave it out: cluster.processes alone shards a dense policy",
        )
    raise RecipeError(
        f"{experts} experts of a layer cannot be shared evenly by {size} ranks",
        file=file,
        key="cluster.expert_parallel",
        remedy=f"set it to a divisor of {experts}",
    )
