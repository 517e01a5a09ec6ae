"""``align grpo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def grpo(
    recipe: Annotated[Path, typer.Argument(help="Recipe file with `kind: grpo`.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.path=value, as many as you like.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run from its latest checkpoint.")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="Check recipe, model, data and rewards; start nothing.")
    ] = False,
    ray_address: Annotated[
        str | None, typer.Option(help="Join a Ray cluster: auto, or ray://host:port.")
    ] = None,
) -> None:
    """Reinforcement learning from several rewards with GRPO.

    A Ray driver runs one training actor, one vLLM rollout actor and a pool of reward workers; each
    step samples a group of completions per prompt, scores them, updates the policy and pushes the
    new weights into the running engine.

    Examples:

        align grpo recipes/quickstart/grpo.yaml grpo.steps=20

        align grpo recipes/smollm2_gsm8k/grpo.yaml --resume
    """
    from align.config.load import load_recipe
    from align.config.recipe import GrpoRecipe

    extra = [f"cluster.ray_address={ray_address}"] if ray_address else []
    loaded = load_recipe(recipe, [*(overrides or []), *extra], kind=GrpoRecipe)

    from align.cli.common import console

    if dry_run:
        from align.train.dry_run import dry_run_grpo

        dry_run_grpo(loaded, file=recipe, console=console)
        return
    from align.train.build import run_grpo

    run = run_grpo(loaded, file=recipe, resume=resume)
    console.print(f"done: {run}  (model in {run / 'final'}, report in {run / 'report.html'})")
