"""New preference pairs from what a policy answered and what it got for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from align.config.data import PreferenceDataConfig
from align.config.reward_model import RewardModelConfig
from align.dataset.chat import set_template
from align.dataset.preference.answer_pairs import best_against_worst
from align.dataset.preference.load import Preferences, load_preferences, remarks
from align.dataset.preference.rows import Point, read_row
from align.dataset.rows.parts import Row, load_parts
from align.errors import DataError
from align.report.rollouts import RolloutSink
from align.types import Completion, Group, Outcome, Prompt, SampleScore, StepStats


def answers(prompt: str, *scored: tuple[str, float | None], start: int = 0) -> list[Row]:
    return [
        Row(f"now/{start + place}", {"prompt": prompt, "completion": text, "good": score})
        for place, (text, score) in enumerate(scored)
    ]


def test_the_best_answer_stands_against_the_worst():
    noise: Counter[Any] = Counter()
    rows = answers("1 + 1 = ?", (" 3", 0.0), (" 2", 1.0), ("two", 0.5))
    (pair,) = best_against_worst(rows, "good", noise)
    assert pair == Row("now/1", {"prompt": "1 + 1 = ?", "chosen": "2", "rejected": "3"})
    assert not noise


def test_of_equals_the_first_counts():
    rows = answers("1 + 1 = ?", ("3", 0.0), ("2", 1.0), ("It is 2.", 1.0), ("It is 3, no, 4.", 0.0))
    (pair,) = best_against_worst(rows, "good", Counter())
    assert (pair.columns["chosen"], pair.columns["rejected"]) == ("2", "3")


def test_answers_to_one_prompt_belong_together_wherever_they_stand():
    rows = [
        *answers("a?", ("yes", 1.0)),
        *answers("b?", ("yes", 0.0), ("no", 2.0), start=1),
        *answers("a?", ("no", 0.0), start=3),
    ]
    pairs = best_against_worst(rows, "good", Counter())
    assert [(pair.id, pair.columns["prompt"]) for pair in pairs] == [("now/0", "a?"), ("now/2", "b?")]


def test_ties_and_failures_are_left_out_and_counted():
    noise: Counter[Any] = Counter()
    rows = [
        *answers("a?", ("yes", 1.0), ("no", 1.0)),
        *answers("b?", ("yes", None), ("no", 2.0), start=2),
        *answers("c?", ("yes", None), ("no", None), start=4),
        *answers("d?", ("yes", None), ("no", 0.0), ("so", 1.0), start=6),
    ]
    (pair,) = best_against_worst(rows, "good", noise)
    assert pair.columns == {"prompt": "d?", "chosen": "so", "rejected": "no"}
    assert noise == {"unscored": 4, "tied": 2}


@pytest.mark.parametrize(
    ("row", "by", "message"),
    [
        ({"prompt": "a?", "completion": "b"}, "reward", "no reward in the columns prompt, completion"),
        ({"prompt": "a?", "reward": 1.0}, "reward", "no completion"),
        ({"prompt": "a?", "completion": "b", "reward": "much"}, "reward", "reward is 'much', not a number"),
    ],
)
def test_a_malformed_answer_is_named(row: dict[str, Any], by: str, message: str):
    with pytest.raises(DataError, match=f"row now/0: {message}") as caught:
        best_against_worst([Row("now/0", row)], by, Counter(), key="data.parts.now")
    assert caught.value.key == "data.parts.now"


# From the rollout files of a run

SYSTEM = {"role": "system", "content": "Be brief."}


def write_step(folder: Path, step: int, prompts: dict[str, list[float | None]], term: str) -> None:
    """A run's file of one step: each prompt's answers, by their rewards; without one the term failed."""
    groups, scores = [], []
    for name, rewards in prompts.items():
        # A text that looks like another turn, as the plain text of a prompt writes turns.
        user = {"role": "user", "content": f"{name} {step}\n\nassistant: Yes."}
        prompt = Prompt(f"a/{name}", (SYSTEM, user), [1], {}, "a")
        completions = []
        for place, reward in enumerate(rewards):
            one = Completion(prompt.id, place, [1], [-0.5], f" {reward}", "stop", step - 1, seed=place)
            outcome = Outcome("timeout") if reward is None else Outcome("ok", reward)
            completions.append(one)
            scores.append(SampleScore(prompt.id, place, reward, {term: outcome}))
        groups.append(Group(prompt, completions))
    stats = StepStats(step, {}, {}, groups, scores, [None] * len(scores))
    RolloutSink(folder, every=1, total_steps=9, start_step=step - 1).write(stats)


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "demo" / "rollouts"
    write_step(folder, 1, {f"old{n}": [0.0, 1.0] for n in range(4)}, "right")
    write_step(folder, 2, {f"new{n}": [0.5, 0.0, 1.0, None] for n in range(12)}, "right")
    write_step(folder, 3, {"same": [1.0, 1.0], "lost": [None, None], "short": [0.0, 1.0]}, "brief")
    return folder


def load(rollouts: Path, tokenizer: Any, **part: Any) -> Preferences:
    set_template(tokenizer)
    settings = {"path": str(rollouts), "split": "step", "columns": {"prompt": "prompt_messages"}, **part}
    data = PreferenceDataConfig.model_validate({"parts": {"now": settings}})
    rm = RewardModelConfig(max_length=128, eval_fraction=0.3)
    return load_preferences(data, tokenizer, rm, seed=0, file="recipe.yaml")


def test_pairs_of_a_runs_last_steps(rollouts: Path, tokenizer: Any):
    loaded = load(rollouts, tokenizer, pairs_by="reward", where="step > 1")
    (line,) = loaded.summary
    assert (line.found, line.excluded) == (4 * 2 + 12 * 4 + 3 * 2, 4 * 2)
    assert line.noise == {"identical": 0, "differing": 0, "empty": 0, "unscored": 12 + 2, "tied": 1}
    assert line.train + line.held_out == len(loaded.rows) == 12 + 1
    assert list(remarks(loaded.summary, 128)) == [
        "part now: left out of 62 rows: 14 unscored, 1 tied prompts"
    ]
    decoded = [
        tokenizer.decode(row["chosen_ids"]) + tokenizer.decode(row["rejected_ids"]) for row in loaded.rows
    ]
    for text in decoded:
        assert "\n\nassistant: Yes.\n\nAssistant:" in text, "the turns of the prompt, whatever its text"
        assert "Assistant: 1.0" in text
        assert "Assistant: 0.0" in text


def test_a_term_that_some_steps_lack_pairs_the_others(rollouts: Path, tokenizer: Any):
    """Step 3 never asked it: its answers have no score."""
    (line,) = load(rollouts, tokenizer, pairs_by="reward/right").summary
    assert line.train + line.held_out == 4 + 12
    assert line.noise["unscored"] == 12 + 6


def test_single_answers_of_a_run_serve_a_point_wise_loss(rollouts: Path):
    columns = {
        "prompt": "prompt_messages",
        "completion": "completion.lstrip()",
        "score": "reward/right",
        "outcome": "outcome/right",
    }
    part = {"path": str(rollouts), "split": "step", "columns": columns, "where": "outcome == 'ok'"}
    (found,) = load_parts(PreferenceDataConfig.model_validate({"parts": {"now": part}}))
    assert (found.found, len(found.rows)) == (62, 4 * 2 + 12 * 3)
    point = read_row(found.rows[1].columns, "binary")
    assert isinstance(point, Point)
    assert point.score == 1.0
    assert [turn["content"] for turn in point.messages] == ["Be brief.", "old0 1\n\nassistant: Yes.", "1.0"]


def test_the_split_of_a_runs_files_is_named(rollouts: Path):
    for step in range(4, 10):
        write_step(rollouts, step, {"a": [0.0, 1.0]}, "right")
    with pytest.raises(DataError, match=r"step-000004\.parquet, 5 more") as caught:
        load_parts(PreferenceDataConfig(path=str(rollouts)))
    assert caught.value.remedy == "set split to one of step"


def test_nothing_but_ties_is_an_error(rollouts: Path, tokenizer: Any):
    with pytest.raises(DataError, match=r"nothing is left of part 'now': \{'unscored': 2, 'tied': 1\}"):
        load(rollouts, tokenizer, pairs_by="reward", where="step == 3 and prompt_id != 'a/short'")
