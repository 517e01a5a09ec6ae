"""The reward models' recipes read their data as they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.config.load import load_recipe
from align.config.recipe import RewardModelRecipe
from align.dataset.parts import load_parts
from align.dataset.preference_rows import Pair, Point, noise_of, read_row
from align.train.reward_model_data import prepare

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
