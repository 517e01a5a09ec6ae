from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

Score = Callable[..., float | None]
Pair = tuple[str, str]


@pytest.mark.parametrize(
    ("text", "expected", "value"),
    [
        ("It is four.", "en", 1.0),
        ("It is four.", "zh", 0.0),
        ("一共是四个。", "zh", 1.0),
        ("一共是四个。", "en", 0.0),
        ("一共是 four", "zh", 0.75),  # three characters and one word
        ("naïve façade", "en", 1.0),
        ("これは四です", "zh", 1 / 6),  # kana are neither
        ("это ok", "en", 0.25),
        ("答案是 $abc + de$ 和 \\(fg\\) 和 \\boxed{xy}", "zh", 1.0),
        ("程序：\n```python\nprint('hello world')\n```\n和 `name` 完", "zh", 1.0),
        ("程序：\n```python\nprint('cut off", "zh", 1.0),
        ("见 https://example.org/some/page", "zh", 1.0),
        ("It costs $5 and then $6", "en", 1.0),
        ("选 B，因为 x = 3", "zh", 1.0),
        ("<think>二加二</think> four", "zh", 0.75),
    ],
)
def test_share(score: Score, text: str, expected: str, value: float) -> None:
    assert score("language", text, args={"expected": expected}) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "18", "$x + y = 3$", "```\ncode here\n```", "B", "3.5 + 2"])
def test_nothing_to_judge_abstains(score: Score, text: str) -> None:
    assert score("language", text, args={"expected": "en"}) is None


@pytest.mark.parametrize(
    ("prompt", "value"),
    [
        ("How many?", 0.25),
        ("一共多少？", 0.75),
        ("将以下短句翻译成中文：She is running in the park with her two old friends.", 0.75),
        ("已知 a×b=120，求 x。", 0.75),
        ("2 + 2 = ?", None),
        ("それはいくつですか", None),
        ("", None),
    ],
)
def test_expected_from_the_prompt(score: Score, prompt: str, value: float | None) -> None:
    assert score("language", "是四个 four", prompt=prompt) == value


def test_argument_beats_column_beats_prompt(score: Score) -> None:
    assert score("language", "是四个 four", prompt="How many?", language="zh") == 0.75
    assert score("language", "是四个 four", args={"expected": "en"}, prompt="多少？", language="zh") == 0.25
    assert score("language", "是四个 four", prompt="How many?", language=None) == 0.25
    with pytest.raises(ValueError, match="knows the languages en and zh, not 'fr'"):
        score("language", "quatre", language="fr")


@pytest.mark.parametrize(
    "unit",
    ["\\(", "\\[", "$$a", "$a ", "`", "<a", "a"],
)
def test_hostile_answers_are_quick(score: Score, unit: str, grows_as_its_text) -> None:
    grows_as_its_text(lambda text: score("language", text, args={"expected": "en"}), lambda n: unit * n)


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pairs_of(shared_data: Path, name: str) -> list[Pair]:
    if name == "belle_zh":
        rows = jsonl(shared_data / name / "eval_set.jsonl")
        return [(row["question"], row["std_answer"]) for row in rows if row["std_answer"]]
    if name == "cmath_zh":  # its answers are numbers: the question stands for an answer
        return [(row["question"], row["question"]) for row in jsonl(shared_data / name / "test.jsonl")]
    if name == "mgsm_zh":
        rows = jsonl(shared_data / name / "test.jsonl")
        return [(row["messages"][0]["content"], row["messages"][0]["content"]) for row in rows]
    if name == "gsm8k":
        return [(row["question"], row["answer"]) for row in jsonl(shared_data / name / "test.jsonl")]
    with (shared_data / name / "dolly_sample.csv").open(encoding="utf-8", newline="") as stream:
        return [(row["instruction"], row["response"]) for row in csv.DictReader(stream)]


@pytest.mark.parametrize(
    ("name", "expected", "rows", "least_mean", "least_high"),
    [
        ("belle_zh", "zh", 631, 0.97, 0.96),  # ten of its answers are translations into English
        ("cmath_zh", "zh", 549, 0.99, 0.99),
        ("mgsm_zh", "zh", 250, 0.99, 0.99),
        ("dolly_1k", "en", 1000, 0.99, 0.99),
        ("gsm8k", "en", 1319, 0.99, 0.99),
    ],
)
def test_real_answers(
    score: Score, shared_data: Path, name: str, expected: str, rows: int, least_mean: float, least_high: float
) -> None:
    pairs = pairs_of(shared_data, name)
    assert len(pairs) == rows
    probe = {"en": 0.25, "zh": 0.75}[expected]
    told = sum(score("language", "是四个 four", prompt=question) == probe for question, _ in pairs)
    values = [score("language", answer, prompt=question) for question, answer in pairs]
    judged = [value for value in values if value is not None]
    high = sum(value >= 0.9 for value in judged) / len(judged)
    print(
        f"language: {name}: prompt told in {told} of {rows}, {rows - len(judged)} abstain, "
        f"mean {fmean(judged):.3f}, at least 0.9 in {high:.1%}"
    )
    other = {"en": "zh", "zh": "en"}[expected]
    swapped = [score("language", answer, args={"expected": other}) or 0.0 for _, answer in pairs]
    assert fmean(swapped) < 0.03
    assert told == rows
    assert fmean(judged) >= least_mean
    assert high >= least_high
