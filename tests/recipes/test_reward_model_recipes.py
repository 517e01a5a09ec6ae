"""The reward models' recipes read their data as they say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from align.config import yaml12
from align.config.load import load_recipe
from align.config.recipe import GrpoRecipe, RewardModelRecipe
from align.dataset.preference.rows import Pair, Point, noise_of, read_row
from align.dataset.rows.parts import load_parts
from align.errors import RecipeError
from align.train.pipeline.stages import load_pipeline
from align.train.reward_model.data import prepare

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
POLICY = RECIPES / "quickstart" / "policy"


def load(name: str, *overrides: str) -> RewardModelRecipe:
    return load_recipe(RECIPES / f"{name}.yaml", overrides, kind=RewardModelRecipe)


@pytest.mark.parametrize("name", ["helpful", "safety"])
def test_the_quickstarts_rows_fit_and_are_split(name: str) -> None:
    """With the policy's own tokenizer; its positions hold every conversation whole."""
    recipe = load(f"quickstart/rm_{name}", f"policy.path={POLICY}", "policy.init=random", "rm.epochs=1")
    prepared = prepare(recipe, file=Path("recipe.yaml"))
    assert sum(line.truncated + sum(line.noise.values()) for line in prepared.summary) == 0
    held, trained = set(prepared.held_out["group"]), set(prepared.rows["group"])
    assert not held & trained
    rows = len(prepared.held_out) + len(prepared.rows)
    assert 0.1 < len(prepared.held_out) / rows < 0.2
    assert prepared.tokenizer.pad_token_id != prepared.tokenizer.eos_token_id


def test_both_answers_to_a_request_are_judged() -> None:
    recipe = load("quickstart/rm_safety")
    safe, unsafe = load_parts(recipe.data)
    for good, bad in zip(safe.rows[:50], unsafe.rows[:50], strict=True):
        points = [read_row(row.columns, recipe.rm.loss) for row in (good, bad)]
        assert all(isinstance(point, Point) for point in points)
        assert [point.score for point in points if isinstance(point, Point)] == [1.0, 0.0]


def test_training_again_replays_the_first_answers_and_holds_out_the_same() -> None:
    first, again = load("quickstart/rm_safety"), load("quickstart/rm_safety_again")
    for name, part in first.data.parts.items():
        replayed = again.data.parts[name]
        assert (replayed.path, replayed.columns) == (first.data.path, part.columns)
    assert again.rm.eval_fraction == first.rm.eval_fraction
    assert again.rm.max_length == first.rm.max_length
    assert again.rm.loss == first.rm.loss
    assert Path(again.policy.path) == first.directory


def test_the_documents_examples_are_sound() -> None:
    text = (ROOT / "docs" / "reward_models.md").read_text(encoding="utf-8")
    pairs, points = (yaml12.parse(block) for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL))
    recipe = RewardModelRecipe.model_validate({"kind": "rm", "name": "doc", **pairs})
    assert recipe.data.parts["now"].pairs_by == "reward"
    assert (ROOT / str(recipe.data.parts["earlier"].path)).is_file()
    point_wise = {"kind": "rm", "name": "doc", "policy": {"path": "p"}, **points}
    shown, shipped = RewardModelRecipe.model_validate(point_wise), load("quickstart/rm_safety_again")
    assert shown.data.parts["now_safe"] == shipped.data.parts["now_safe"]
    assert shown.data.path == shipped.data.path


def test_only_pairs_are_paired() -> None:
    with pytest.raises(RecipeError, match=r"pairs_by belongs to rm.loss: bradley_terry, not to binary"):
        load("quickstart/rm_safety_again", "data.parts.now_safe.pairs_by=score")


def test_the_preference_stage_takes_the_model_that_was_trained_again() -> None:
    _, two_stage = load_pipeline(RECIPES / "quickstart" / "two_stage.yaml")
    _, (model, preference, after) = load_pipeline(RECIPES / "quickstart" / "preference_again.yaml")
    made = {stage.name: stage.directory for stage in two_stage}
    assert Path(model.recipe.policy.path) == made["rm_safety"]
    assert isinstance(model.recipe, RewardModelRecipe)
    assert model.recipe.data.path == str(made["reasoning"] / "rollouts")
    assert Path(preference.recipe.policy.path) == made["reasoning"]
    assert isinstance(preference.recipe, GrpoRecipe)
    terms = preference.recipe.rewards.terms
    assert terms["helpful"].model == str(made["rm_helpful"])
    assert terms["safety"].model == str(model.directory)
    assert Path(after.recipe.policy.path) == preference.directory


@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("rm_helpful", "hh_rlhf/helpful-base.jsonl.gz", 2354),
        ("rm_harmless", "hh_rlhf/harmless-base.jsonl.gz", 1898),
        ("rm_qa_feedback", "qa_feedback/dev_preference_pairs.jsonl", 2616),
    ],
)
def test_human_preferences_are_read(shared_data: Path, name: str, file: str, count: int) -> None:
    recipe = load(f"smollm2_hh/{name}", f"data.path={shared_data / file}")
    (part,) = load_parts(recipe.data)
    assert part.found == count
    pairs = [read_row(row.columns, recipe.rm.loss) for row in part.rows]
    usable = [pair for pair in pairs if isinstance(pair, Pair)]
    assert count - 10 <= len(usable) <= count
    assert all(noise_of(pair) is None for pair in usable)
    assert all(pair.chosen[-1]["role"] == "assistant" for pair in usable)


def test_the_papers_recipes_read_public_rows(tmp_path: Path) -> None:
    def write(name: str, rows: list[dict[str, Any]]) -> str:
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return f"{tmp_path}/{name}.jsonl"

    def turns(answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]

    ultra = {"prompt": "q", "chosen": turns("a"), "rejected": turns("b"), "score_chosen": 8.0}
    judged = {"prompt": "q", "response_0": "a", "response_1": "b"}
    judged |= {"is_response_0_safe": False, "is_response_1_safe": True}
    step = {"prompt": "q", "chosen": "s", "rejected": "t", "full_chosen": "right", "full_rejected": "wrong"}
    code = {"input": "q", "chosen": "good", "rejected": "bad", "system": None}
    files = {
        "ultrafeedback": [{**ultra, "score_rejected": 8.0}, {**ultra, "score_rejected": 5.0}],
        "human": [{"chosen": turns("a"), "rejected": turns("b")}],
        "answers": [{"prompt": "q", "response": "a", "is_safe": True}],
        "first": [judged],
        "second": [judged],
        "maths": [step, {**step, "full_rejected": ""}],
        "code": [{**code, "aspect": 3}, {**code, "aspect": 0}],
    }
    paths = {name: write(name, rows) for name, rows in files.items()}
    found: dict[str, list[Any]] = {}
    for name in ("helpful", "safety", "reasoning"):
        recipe = load(f"v2_lite_rm_{name}")
        overrides = [f"data.parts.{part}.path={paths[part]}" for part in recipe.data.parts]
        recipe = load(f"v2_lite_rm_{name}", *overrides)
        for part in load_parts(recipe.data):
            found[part.name] = [read_row(row.columns, recipe.rm.loss) for row in part.rows]
    assert len(found["ultrafeedback"]) == 1  # a tie says nothing
    assert [each.score for part in ("answers", "first", "second") for each in found[part]] == [1.0, 0.0, 1.0]
    right, nothing = found["maths"]
    assert (right.chosen[-1]["content"], right.rejected[-1]["content"]) == ("right", "wrong")
    assert nothing == "empty"
    assert [pair.chosen[0]["content"] for pair in found["code"]] == ["q"]
