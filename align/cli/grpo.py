"""``align grpo``."""

from __future__ import annotations

from align.cli.common import DryRun, Overrides, RayAddress, RecipeFile, Resume, console, on_cluster


def grpo(
    recipe: RecipeFile,
    overrides: Overrides = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    ray_address: RayAddress = None,
) -> None:
    """Reinforcement learning from several rewards with GRPO.

    A Ray driver runs training actors, vLLM rollout actors and a pool of reward workers; each step
    samples a group of completions per prompt, scores them, updates the policy and pushes the new
    weights into the running engines. The recipe's cluster section says how many there are, and where.

    \b
    [bold]Examples[/]
      align grpo recipes/quickstart/grpo.yaml grpo.steps=20
      align grpo recipes/smollm2_gsm8k/grpo.yaml --resume
    """
    from align.config.load import load_recipe
    from align.config.recipe import GrpoRecipe

    loaded = load_recipe(recipe, on_cluster(overrides, ray_address), kind=GrpoRecipe)
    if dry_run:
        from align.reward.functions.registry import resolve
        from align.train.grpo.dry_run import dry_run_grpo
        from align.train.grpo.sandbox_note import sandbox_note

        dry_run_grpo(loaded, file=recipe, console=console)
        terms = loaded.rewards.terms.values()
        if note := sandbox_note(resolve(term.function, term.args) for term in terms if term.function):
            console.print(note, markup=False)
        return
    from align.train.grpo.run import run_grpo

    run = run_grpo(loaded, file=recipe, resume=resume)
    console.print(f"done: {run}  (model in {run / 'final'}, report in {run / 'report.html'})")
