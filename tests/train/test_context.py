from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import BloomConfig, GPT2Config

from align.config.recipe import GrpoRecipe
from align.errors import RecipeError
from align.train.context import Context, check_lengths, check_positions, longest_context
from align.types import Prompt


def recipe(**sections: Any) -> GrpoRecipe:
    base = {
        "kind": "grpo",
        "name": "context",
        "policy": {"path": "model"},
        "data": {"path": "none"},
        "rewards": {"terms": {"none": {"function": "none"}}},
        "rollout": {"max_new_tokens": 20},
    }
    return GrpoRecipe.model_validate(base | sections)


def prompts(*lengths: int) -> list[Prompt]:
    return [Prompt(f"p/{length}", (), [1] * length) for length in lengths]


@pytest.mark.parametrize(
    ("answer", "held_out", "expected"),
    [
        (10, {}, Context(50, "rollout.max_new_tokens")),
        (500, {}, Context(50, "rollout.max_new_tokens")),  # nobody is asked
        (10, {"a": prompts(40)}, Context(50, "rollout.max_new_tokens")),
        (64, {"a": prompts(5), "b": prompts(40)}, Context(104, "eval.max_new_tokens")),
        (21, {"a": prompts(30)}, Context(51, "eval.max_new_tokens")),
    ],
)
def test_the_longest_row_of_training_and_measuring(answer: int, held_out: Any, expected: Context) -> None:
    found = longest_context(recipe(eval={"max_new_tokens": answer}), prompts(3, 30), held_out)
    assert found == expected


def config(**values: Any) -> Any:
    made = SimpleNamespace(**values)
    made.get_text_config = lambda: made
    return made


@pytest.mark.parametrize(
    "model",
    [
        config(max_position_embeddings=100),
        config(),
        config(max_position_embeddings=50, rope_parameters={"rope_type": "linear", "factor": 2.0}),
        config(max_position_embeddings=100, rope_parameters={"rope_type": "yarn", "factor": 40.0}),
    ],
)
def test_what_the_model_can_read_passes(model: Any) -> None:
    check_positions(Context(100, "rollout.max_new_tokens"), model, file=Path("r.yaml"))


@pytest.mark.parametrize(
    "model",
    [
        config(max_position_embeddings=99),
        config(max_position_embeddings=99, rope_parameters={"rope_type": "yarn", "factor": 40.0}),
        config(max_position_embeddings=33, rope_parameters={"rope_type": "dynamic", "factor": 3.0}),
    ],
)
def test_more_is_refused_by_key(model: Any) -> None:
    with pytest.raises(RecipeError, match="100 tokens together, the model reads at most 99") as caught:
        check_positions(Context(100, "eval.max_new_tokens"), model, file=Path("r.yaml"))
    assert caught.value.key == "eval.max_new_tokens"


def test_rows_longer_than_learned_positions_are_refused_by_name() -> None:
    model = GPT2Config(n_positions=64)
    check_lengths(64, model, key="sft.max_length", file=Path("r.yaml"), row="a/1")
    with pytest.raises(RecipeError, match="row a/1 has 65 tokens, the model reads at most 64") as caught:
        check_lengths(65, model, key="sft.max_length", file=Path("r.yaml"), row="a/1")
    assert (caught.value.key, caught.value.remedy) == ("sft.max_length", "set sft.max_length to at most 64")
    check_lengths(10**6, BloomConfig(), key="sft.max_length", file=Path("r.yaml"), row="a/1")
