"""``align plan``: what a recipe needs, before it is run."""

from __future__ import annotations

from align.cli.common import Overrides, RecipeFile, console


def plan(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Show parameters, memory per device, tokens and compute of a recipe, and whether it fits.

    Reads the model's config.json alone: no weights, no data, no network. The shapes of
    deepseek-ai/DeepSeek-V2 and DeepSeek-V2-Lite come with align.

    \b
    [bold]Examples[/]
      align plan recipes/v2_lite_chat.yaml
      align plan recipes/v2_lite_chat.yaml cluster.processes=4 'policy.lora={rank: 32}'
    """
    from align.config.load import check_kind, load_recipe, read_tree
    from align.config.recipe import GrpoRecipe, RewardModelRecipe, SftRecipe
    from align.errors import RecipeError
    from align.plan.fit import plan_grpo, plan_sft
    from align.plan.params import read_shape
    from align.plan.reward_model import plan_reward_model
    from align.plan.source import read_config
    from align.plan.table import plan_table

    kind = read_tree(recipe).get("kind")
    if kind == "sft":
        sft = load_recipe(recipe, overrides or [], kind=SftRecipe)
        found = plan_sft(sft, read_shape(read_config(sft.policy.path)))
    elif kind == "rm":
        rm = load_recipe(recipe, overrides or [], kind=RewardModelRecipe)
        found = plan_reward_model(rm, read_shape(read_config(rm.policy.path)))
    elif kind == "grpo":
        grpo = load_recipe(recipe, overrides or [], kind=GrpoRecipe)
        found = plan_grpo(grpo, read_shape(read_config(grpo.policy.path)))
    else:
        check_kind(kind, file=recipe)
        raise RecipeError(
            f"a recipe of kind {kind!r} trains nothing",
            file=recipe,
            key="kind",
            remedy="name a recipe of kind sft, rm or grpo",
        )
    console.print(plan_table(found))
