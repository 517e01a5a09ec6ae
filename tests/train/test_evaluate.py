"""Held-out measurements: hand-worked means, intervals and differences; failures are never zeros."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from align.config.data import EvalConfig
from align.errors import DataError, RewardError
from align.train.evaluate import Z95, check_metrics, compare, evaluate, interval, standard_error
from align.types import Completion, Prompt

METRICS = """
from align.reward import Sample, reward


@reward
def equals(sample: Sample) -> float:
    return float(sample.completion == sample["answer"])


@reward
def length(sample: Sample, scale: float = 1.0) -> float:
    return scale * len(sample.completion)


@reward
def picky(sample: Sample) -> float | None:
    if sample["answer"] == "skip":
        return None
    if sample["answer"] == "break":
        raise ValueError("cannot judge this")
    return 1.0


@reward
def broken(sample: Sample) -> float:
    raise RuntimeError("never works")


@reward
def silent(sample: Sample) -> None:
    return None


@reward
def wrong_shape(sample: Sample) -> str:
    return "good"
"""


@pytest.fixture
def metrics(tmp_path: Path) -> str:
    file = tmp_path / "metrics.py"
    file.write_text(METRICS)
    return str(file)


def prompts(part: str, answers: Sequence[str]) -> list[Prompt]:
    return [
        Prompt(
            f"{part}/{i}", ({"role": "user", "content": f"say {answer}"},), [1, 2], {"answer": answer}, part
        )
        for i, answer in enumerate(answers)
    ]


def engine(answer: Callable[[Prompt], str], cut_off: Sequence[str] = ()) -> Callable[..., list[Completion]]:
    """An engine that answers by a function, and records how it was asked."""

    def ask(asked: Sequence[Prompt], max_new_tokens: int, temperature: float) -> list[Completion]:
        ask.calls.append((len(asked), max_new_tokens, temperature))  # type: ignore[attr-defined]
        return [
            Completion(
                prompt_id=prompt.id,
                sample_index=0,
                token_ids=[5] * len(answer(prompt)),
                logprobs=[],
                text=answer(prompt),
                finish_reason="length" if prompt.id in cut_off else "stop",
                weight_version=0,
                seed=0,
            )
            for prompt in asked
        ]

    ask.calls = []  # type: ignore[attr-defined]
    return ask


def config(**parts: dict[str, object]) -> EvalConfig:
    return EvalConfig.model_validate({"parts": parts, "max_new_tokens": 7, "temperature": 0.5})


def test_mean_standard_error_counts_and_rows(metrics: str) -> None:
    asked = prompts("sums", ["3", "4", "5", "6"])
    ask = engine(lambda prompt: "6" if prompt.id.endswith("0") else str(prompt.columns["answer"]), ["sums/1"])
    values, rows = evaluate(config(sums={"metric": f"{metrics}:equals"}), {"sums": asked}, ask)
    # Scores 0, 1, 1, 1: mean 3/4, sample variance (9/16 + 3/16) / 3 = 1/4, stderr 1/2 / sqrt(4).
    assert values == {
        "eval/sums": 0.75,
        "eval/sums/stderr": 0.25,
        "eval/sums/scored": 4.0,
        "eval/sums/abstained": 0.0,
        "eval/sums/failed": 0.0,
        "eval/sums/truncated": 0.25,
    }
    assert [row["score"] for row in rows] == [0.0, 1.0, 1.0, 1.0]
    assert rows[0] == {
        "part": "sums",
        "prompt_id": "sums/0",
        "messages": [{"role": "user", "content": "say 3"}],
        "columns": {"answer": "3"},
        "answer": "6",
        "tokens": 1,
        "finish_reason": "stop",
        "outcome": "ok",
        "score": 0.0,
        "detail": "",
    }


def test_all_parts_are_asked_at_once_and_scored_apart(metrics: str) -> None:
    ask = engine(lambda prompt: "abc" if prompt.part == "b" else str(prompt.columns["answer"]))
    values, rows = evaluate(
        config(a={"metric": f"{metrics}:equals"}, b={"metric": f"{metrics}:length", "args": {"scale": 2}}),
        {"b": prompts("b", ["x"]), "a": prompts("a", ["1", "2"])},
        ask,
    )
    assert ask.calls == [(3, 7, 0.5)]  # type: ignore[attr-defined]
    assert (values["eval/a"], values["eval/b"]) == (1.0, 6.0)
    assert [(row["part"], row["prompt_id"]) for row in rows] == [("a", "a/0"), ("a", "a/1"), ("b", "b/0")]


def test_failures_and_abstentions_are_left_out_and_counted(metrics: str) -> None:
    asked = prompts("p", ["fine", "skip", "break", "fine"])
    values, rows = evaluate(config(p={"metric": f"{metrics}:picky"}), {"p": asked}, engine(lambda _: "x"))
    assert values["eval/p"] == 1.0
    counts = [values[f"eval/p/{count}"] for count in ("scored", "abstained", "failed")]
    assert counts == [2.0, 1.0, 1.0]
    assert [row["outcome"] for row in rows] == ["ok", "abstain", "error", "ok"]
    assert rows[2]["score"] is None
    assert "cannot judge this" in rows[2]["detail"]


@pytest.mark.parametrize(
    ("name", "reason"), [("broken", "RuntimeError: never works"), ("silent", "it abstained")]
)
def test_a_metric_without_any_score_is_an_error(metrics: str, name: str, reason: str) -> None:
    with pytest.raises(RewardError) as caught:
        evaluate(
            config(p={"metric": f"{metrics}:{name}"}),
            {"p": prompts("p", ["1"])},
            engine(lambda _: "x"),
            file="r.yaml",
        )
    assert reason in caught.value.message
    assert (caught.value.file, caught.value.key) == ("r.yaml", "eval.parts.p.metric")


@pytest.mark.parametrize("given", [{}, {"p": []}])
def test_a_part_without_rows_is_an_error(metrics: str, given: dict[str, list[Prompt]]) -> None:
    ask = engine(lambda _: "x")
    with pytest.raises(DataError) as caught:
        evaluate(config(p={"metric": f"{metrics}:equals"}), given, ask)
    assert caught.value.key == "eval.parts.p"
    assert ask.calls == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("metric", "reason"),
    [("nowhere_to_be_found", "no reward function named"), ("{file}:absent", "has no function 'absent'")],
)
def test_an_unknown_metric_is_an_error_before_the_engine_is_asked(
    metric: str, reason: str, metrics: str
) -> None:
    ask = engine(lambda _: "x")
    named = config(p={"metric": metric.format(file=metrics)})
    with pytest.raises(RewardError) as caught:
        evaluate(named, {"p": prompts("p", ["1"])}, ask)
    assert reason in caught.value.message
    assert ask.calls == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "reason"), [("broken", "never works"), ("wrong_shape", "returned str")])
def test_the_check_calls_each_metric_once(metrics: str, name: str, reason: str) -> None:
    with pytest.raises(RewardError) as caught:
        check_metrics(config(p={"metric": f"{metrics}:{name}"}), {"p": prompts("p", ["1"])})
    assert reason in caught.value.message


def test_the_check_passes_what_works(metrics: str) -> None:
    check_metrics(config(p={"metric": f"{metrics}:equals"}), {"p": prompts("p", ["1"])})


def test_standard_error() -> None:
    assert standard_error([2.0]) == 0.0
    assert standard_error([1.0, 3.0]) == pytest.approx(math.sqrt(2) / math.sqrt(2))


def test_interval_of_shares_is_wilsons() -> None:
    # Wilson, n = 20, none right: upper end z² / (n + z²).
    low, high = interval([0.0] * 20)
    assert low == 0.0
    assert high == pytest.approx(Z95**2 / (20 + Z95**2))
    # n = 10, 5 right: centre 1/2; half-width z/(n + z²) · sqrt(n/4 + z²/4), symmetric.
    low, high = interval([0.0, 1.0] * 5)
    half = Z95 / (10 + Z95**2) * math.sqrt(10 / 4 + Z95**2 / 4)
    assert (low, high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))
    assert interval([1.0] * 20)[1] == 1.0


def test_interval_of_scores_is_normal() -> None:
    low, high = interval([1.0, 2.0, 3.0])  # mean 2, stderr 1/sqrt(3)
    assert (low, high) == (pytest.approx(2 - Z95 / math.sqrt(3)), pytest.approx(2 + Z95 / math.sqrt(3)))


def row(part: str, number: int, score: float | None) -> dict[str, object]:
    return {"part": part, "prompt_id": f"{part}/{number}", "score": score}


def test_differences_are_paired_by_prompt() -> None:
    before = [
        row("a", 0, 0.0),
        row("a", 1, 0.0),
        row("a", 2, 1.0),
        row("a", 3, None),
        row("b", 0, 1.0),
        row("a", 9, 1.0),
    ]
    after = [row("a", 2, 1.0), row("a", 1, 1.0), row("a", 0, 0.0), row("a", 3, 1.0), row("c", 0, 1.0)]
    (found,) = compare(before, after)
    # Common and scored: a/0 (0→0), a/1 (0→1), a/2 (1→1); differences 0, 1, 0.
    assert (found.part, found.prompts) == ("a", 3)
    assert (found.before, found.after) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert found.change == pytest.approx(1 / 3)
    assert found.half_width == pytest.approx(Z95 * math.sqrt(1 / 3) / math.sqrt(3))


def test_nothing_in_common() -> None:
    assert compare([row("a", 0, 1.0)], [row("a", 1, 1.0)]) == []
