"""Every recipe that ships loads, from any directory, and its data is what the recipe says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from align.config.load import load_recipe, read_tree
from align.config.recipe import KINDS, EvalRecipe, GrpoRecipe, PipelineRecipe, SftRecipe
from align.train.evaluate import load_metrics
from align.train.pipeline.stages import load_pipeline

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("**/*.yaml"))
NAMES = [str(file.relative_to(ROOT / "recipes")) for file in RECIPES]
QUICKSTART = ROOT / "recipes" / "quickstart"
GSM8K = ROOT / "recipes" / "smollm2_gsm8k"


def load(file: Path, *overrides: str) -> Any:
    return load_recipe(file, overrides, kind=KINDS[read_tree(file)["kind"]])


def test_there_are_recipes() -> None:
    assert {"quickstart/pipeline.yaml", "smollm2_gsm8k/grpo.yaml"} <= set(NAMES)


@pytest.mark.parametrize("file", RECIPES, ids=NAMES)
def test_a_recipe_loads_from_any_directory(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load(file)
    if isinstance(recipe, PipelineRecipe):
        _, stages = load_pipeline(file)
        assert stages
    elif isinstance(recipe, GrpoRecipe | EvalRecipe):
        load_metrics(recipe.eval, file=file)


@pytest.mark.parametrize("file", RECIPES, ids=NAMES)
def test_a_recipe_explains_itself(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert re.match(r"# \S", first), "say at the top what the recipe does"


def test_recipe_names_are_different() -> None:
    """Two recipes of one name would share a run directory."""
    names = [load(file).name for file in RECIPES]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("file", RECIPES, ids=NAMES)
def test_files_that_a_recipe_brings_along_are_there(file: Path) -> None:
    def paths(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [path for item in value.values() for path in paths(item)]
        if isinstance(value, list):
            return [path for item in value for path in paths(item)]
        return [value] if isinstance(value, str) and value.startswith(str(ROOT)) else []

    assert [path for path in paths(read_tree(file)) if not Path(path).exists()] == []


# The quickstart, with its own tokenizer and data


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from align.dataset.chat import set_template
    from align.model.files.load import load_tokenizer

    loaded = load_tokenizer(load(QUICKSTART / "sft.yaml").policy)
    set_template(loaded)
    return loaded


def room(policy_folder: Path) -> int:
    return int(json.loads((policy_folder / "config.json").read_text())["max_position_embeddings"])


def test_quickstart_conversations_fit(tokenizer: Any) -> None:
    from align.dataset.conversations import load_conversations

    recipe = load(QUICKSTART / "sft.yaml", *limits("data", "maths", "code", "helpful", "safety"))
    assert isinstance(recipe, SftRecipe)
    assert recipe.sft.max_length <= room(QUICKSTART / "policy")
    loaded = load_conversations(recipe.data, tokenizer, recipe.sft, seed=0)
    assert [line.dropped for line in loaded.summary] == [0, 0, 0, 0]


def test_quickstart_prompts_fit_and_carry_what_the_rewards_read(tokenizer: Any) -> None:
    from align.dataset.prompts import load_prompts
    from align.dataset.rows.expression import compile_expression
    from align.reward.bank.terms import load_terms, probes, smoke

    recipe = load(QUICKSTART / "grpo.yaml", *limits("data", "maths", "code", "safety"))
    assert isinstance(recipe, GrpoRecipe)
    assert recipe.grpo.max_prompt_tokens + recipe.rollout.max_new_tokens <= room(QUICKSTART / "policy")
    prompts = load_prompts(recipe.data, tokenizer, recipe.grpo)
    terms = load_terms(recipe.rewards, compile_expression)
    one_of_each = list({prompt.part: prompt for prompt in prompts}.values())
    smoke(terms, probes(one_of_each, max_new_tokens=recipe.rollout.max_new_tokens))
    for prompt in one_of_each:
        assert any(term.covers(prompt.columns) for term in terms), prompt.part


def test_quickstart_measures_refusals_of_harmful_and_of_harmless_apart(tokenizer: Any) -> None:
    from align.dataset.prompts import load_eval_prompts
    from align.train.evaluate import check_metrics

    recipe = load(QUICKSTART / "eval.yaml")
    prompts = load_eval_prompts(recipe.eval, tokenizer)
    check_metrics(recipe.eval, prompts)
    assert {prompt.columns["should_refuse"] for prompt in prompts["refusal"]} == {True}
    assert {prompt.columns["should_refuse"] for prompt in prompts["over_refusal"]} == {False}
    assert len(prompts["maths"]) >= 200
    assert len(prompts["code"]) == 200


def limits(section: str, *parts: str) -> list[str]:
    """The first rows are enough to see that all fits together."""
    return [f"{section}.parts.{part}.limit=300" for part in parts]


# GSM8K, with real rows where they are at hand


def test_gsm8k_columns(tokenizer: Any, shared_data: Path) -> None:
    from align.dataset.rows.parts import load_parts

    local = f"data.path={shared_data / 'gsm8k'}"
    (solutions,) = load_parts(load(GSM8K / "sft.yaml", local, *limits("data", "gsm8k")).data)
    for row in solutions.rows:
        assert "<<" not in row.columns["completion"]
        assert ">>" not in row.columns["completion"]
        assert re.search(r"\n#### \S+$", row.columns["completion"])
    (problems,) = load_parts(load(GSM8K / "grpo.yaml", local, *limits("data", "gsm8k")).data)
    assert all(re.fullmatch(r"-?[\d,.]+", row.columns["answer"]) for row in problems.rows)
    assert solutions.found == 7473
    assert any("<<" in row.columns["answer"] for row in solutions.rows)


def test_a_gsm8k_solution_gets_the_full_reward(tokenizer: Any, shared_data: Path) -> None:
    """Reward functions, columns and prompts of the recipe, on the solutions of the data set itself."""
    from align.dataset.prompts import load_prompts
    from align.dataset.rows.expression import compile_expression
    from align.dataset.rows.parts import load_parts
    from align.reward.bank.terms import load_terms
    from align.reward.calls.score import call
    from align.reward.contract import Sample

    overrides = [f"data.path={shared_data / 'gsm8k'}", "data.parts.gsm8k.limit=50"]
    # The quickstart's small vocabulary needs more tokens for a problem than SmolLM2's.
    recipe = load(GSM8K / "grpo.yaml", *overrides, "grpo.max_prompt_tokens=2000")
    prompts = load_prompts(recipe.data, tokenizer, recipe.grpo)
    (part,) = load_parts(load(GSM8K / "sft.yaml", *overrides).data)
    texts = [row.columns["completion"] for row in part.rows]
    samples = [
        Sample(prompt.messages, text, columns=prompt.columns, part=prompt.part)
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    for term in load_terms(recipe.rewards, compile_expression):
        assert [outcome.value for outcome in call(term.function, samples)] == [1.0] * len(samples), term.name


def test_gsm8k_is_a_run_worth_its_name() -> None:
    """At least 20 steps of 64 completions, in bf16."""
    recipe = load(GSM8K / "grpo.yaml")
    assert isinstance(recipe, GrpoRecipe)
    assert recipe.grpo.steps >= 20
    assert recipe.grpo.prompts_per_step * recipe.grpo.group_size == 64
    assert recipe.policy.dtype == "bfloat16"
