from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from align.reward.calls.score import call, outcome_of
from align.reward.contract import Sample
from align.reward.functions.registry import resolve

Write = Callable[[str, str], str]


@pytest.mark.parametrize(
    ("value", "kind", "score", "parts"),
    [
        (0.5, "ok", 0.5, {}),
        (3, "ok", 3.0, {}),
        (True, "ok", 1.0, {}),
        (None, "abstain", None, {}),
        (np.float32(0.25), "ok", 0.25, {}),
        (np.bool_(True), "ok", 1.0, {}),
        (torch.tensor(0.5), "ok", 0.5, {}),
        ({"a": 1, "b": 0.25}, "ok", 1.25, {"a": 1.0, "b": 0.25}),
        ({"score": 0.5, "a": 9, "note": "right"}, "ok", 0.5, {"a": 9.0}),
        ({"reward": 1, "b": np.bool_(False)}, "ok", 1.0, {"b": 0.0}),
        ({"score": 1, "a": np.arange(3), "b": torch.ones(2, 2), "c": None, "d": [1]}, "ok", 1.0, {}),
        (
            {"score": np.array([0.5]), "n": np.array(2), "t": torch.tensor([3])},
            "ok",
            0.5,
            {"n": 2.0, "t": 3.0},
        ),
        ({"score": 1, "a": {"b": 1}, "c": {1}, "d": b"x", "e": 1j}, "ok", 1.0, {}),
        ({"score": 1, "a": float("nan")}, "error", None, {}),
        ({"score": np.arange(2)}, "error", None, {}),
        ((0.5, "why"), "ok", 0.5, {}),
        (({"score": 0.5, "a": 2}, "why"), "ok", 0.5, {"a": 2.0}),
        ((None, "why"), "abstain", None, {}),
        ((), "error", None, {}),
        (("why", 0.5), "error", None, {}),
        (Decimal("0.5"), "ok", 0.5, {}),
        (Decimal("NaN"), "error", None, {}),
        (Fraction(1, 4), "ok", 0.25, {}),
        ({"score": None}, "abstain", None, {}),
        (float("nan"), "error", None, {}),
        (float("-inf"), "error", None, {}),
        (1e39, "error", None, {}),
        ({"score": -1e39, "a": 1}, "error", None, {}),
        (10**400, "error", None, {}),
        ("1.0", "error", None, {}),
        ([1.0], "error", None, {}),
        (1j, "error", None, {}),
        ({}, "error", None, {}),
        ({"a": "x"}, "error", None, {}),
        ({"score": float("nan")}, "error", None, {}),
        ({"a": float("inf")}, "error", None, {}),
        (torch.tensor([1.0, 2.0]), "error", None, {}),
    ],
)
def test_what_a_returned_value_means(
    value: Any, kind: str, score: float | None, parts: dict[str, float]
) -> None:
    outcome = outcome_of(value)
    assert (outcome.kind, outcome.value, outcome.parts) == (kind, score, parts)
    assert bool(outcome.detail) == (kind == "error")


def test_native_single(write: Write, samples: list[Sample]) -> None:
    path = write("f.py", "def f(sample, k): return k * float(sample.completion == sample['answer'])\n")
    outcomes = call(resolve(path, {"k": 2}), samples)
    assert [outcome.value for outcome in outcomes] == [2.0, 0.0, 0.0]
    assert all(outcome.seconds > 0 for outcome in outcomes)


def test_an_exception_costs_one_sample_and_keeps_the_users_lines(write: Write, samples: list[Sample]) -> None:
    text = """
        def f(sample):
            return inner(sample)
        def inner(sample):
            return 1 / (sample.sample_index - 1)
    """
    path = write("f.py", text)
    kinds = [outcome.kind for outcome in call(resolve(path + ":f"), samples)]
    assert kinds == ["ok", "error", "ok"]
    detail = call(resolve(path + ":f"), samples)[1].detail
    assert detail.endswith("ZeroDivisionError: division by zero")
    assert path in detail
    assert "score.py" not in detail


def test_system_exit_is_an_error_and_interrupt_is_not(write: Write, samples: list[Sample]) -> None:
    assert (
        call(resolve(write("a.py", "import sys\ndef f(sample): sys.exit(3)\n")), samples[:1])[0].kind
        == "error"
    )
    stop = resolve(write("b.py", "def f(sample): raise KeyboardInterrupt\n"))
    with pytest.raises(KeyboardInterrupt):
        call(stop, samples)


def test_missing_column_is_told_plainly(write: Write, samples: list[Sample]) -> None:
    outcome = call(resolve(write("f.py", "def f(sample): return sample['solution']\n")), samples)[0]
    assert outcome.kind == "error"
    assert "has no column 'solution' (its columns: answer, level)" in outcome.detail
    assert "Traceback" not in outcome.detail


def test_native_batched(write: Write, samples: list[Sample]) -> None:
    path = write("f.py", "def f(samples): return [len({s.completion for s in samples}), None, True]\n")
    outcomes = call(resolve(path), samples)
    assert [(outcome.kind, outcome.value) for outcome in outcomes] == [
        ("ok", 3),
        ("abstain", None),
        ("ok", 1),
    ]


@pytest.mark.parametrize("value", ["[1.0]", "1.0", "'abc'", "{'a': 1}", "None"])
def test_batched_with_the_wrong_shape_fails_for_all(write: Write, samples: list[Sample], value: str) -> None:
    outcomes = call(resolve(write("f.py", f"def f(samples): return {value}\n")), samples)
    assert [outcome.kind for outcome in outcomes] == ["error"] * 3
    assert "3" in outcomes[0].detail


def test_an_exception_in_a_trl_list_is_narrowed_to_the_sample_at_fault(
    write: Write, samples: list[Sample]
) -> None:
    path = write("g.py", "def g(completions, n, **kwargs): return [1 / (each - 2) for each in n]\n")
    numbered = [replace(sample, columns={"n": row}) for row, sample in enumerate(samples)]
    outcomes = call(resolve(path), numbered)
    assert [outcome.value for outcome in outcomes] == [-0.5, -1.0, None]
    assert outcomes[2].detail.endswith("division by zero")
    assert outcomes[2].detail.count("Traceback") == 1


@pytest.mark.parametrize("kind", ["", "async "])
def test_an_exception_in_a_comparison_fails_the_whole_group(
    write: Write, samples: list[Sample], kind: str
) -> None:
    """Called with one sample, this function would find it unlike all others."""
    text = f"""
        from align.reward import reward
        @reward(batched=True)
        {kind}def distinct(samples):
            texts = [float(sample.completion) for sample in samples]
            return [float(texts.count(text) == 1) for text in texts]
    """
    function = resolve(write("distinct.py", text))
    assert [each.value for each in call(function, [samples[0], samples[0]])] == [0.0, 0.0]
    outcomes = call(function, [samples[0], samples[0], samples[2]])
    assert [(each.kind, each.value) for each in outcomes] == [("error", None)] * 3
    assert all(each.detail.endswith("could not convert string to float: 'I think that'") for each in outcomes)


def test_batched_iterables_and_tensors(write: Write, samples: list[Sample]) -> None:
    path = write("f.py", "import torch\ndef f(samples): return torch.arange(len(samples)) / 2\n")
    assert [outcome.value for outcome in call(resolve(path), samples)] == [0.0, 0.5, 1.0]


def test_trl_style_gets_conversations_and_columns(write: Write, samples: list[Sample]) -> None:
    text = """
        def f(prompts, completions, completion_ids, answer, level, **kwargs):
            assert prompts == [[{"role": "user", "content": "2+2?"}]] * len(prompts)
            assert level == [1] * len(prompts)
            assert (kwargs["trainer_state"].global_step, kwargs["trainer_state"].max_steps) == (0, 1)
            kwargs["log_metric"]("accuracy", 1.0)
            kwargs["log_extra"]("extracted", ["x"])
            return [
                None if len(ids) == 8 else float(turn[0]["content"] == right)
                for turn, ids, right in zip(completions, completion_ids, answer)
            ]
    """
    outcomes = call(resolve(write("f.py", text)), samples)
    assert [(outcome.kind, outcome.value) for outcome in outcomes] == [
        ("ok", 1),
        ("ok", 0),
        ("abstain", None),
    ]


def test_trl_style_missing_column(write: Write, samples: list[Sample]) -> None:
    function = resolve(
        write("f.py", "def f(completions, solution, **kwargs): return [0.0] * len(completions)\n")
    )
    assert "has no column 'solution'" in call(function, samples)[0].detail
    fixed = resolve(function.reference, {"solution": "4"})
    assert [outcome.value for outcome in call(fixed, samples)] == [0.0] * 3


def test_functions_shipped_with_trl_run_unchanged(write: Write) -> None:
    text = """
        from trl.rewards import accuracy_reward, get_soft_overlong_punishment, think_format_reward
        overlong = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)
    """
    path = write("theirs.py", text)
    right = Sample(
        (), "<think>half</think>It is \\boxed{\\frac{1}{2}}", [1] * 90, columns={"solution": "$0.5$"}
    )
    wrong = Sample((), "It is \\boxed{3}", [1] * 10, columns={"solution": "$0.5$"})
    values = {
        name: [outcome.value for outcome in call(resolve(f"{path}:{name}"), [right, wrong])]
        for name in ("accuracy_reward", "think_format_reward", "overlong")
    }
    assert values == {"accuracy_reward": [1, 0], "think_format_reward": [1, 0], "overlong": [-0.5, 0]}


def test_verl_style(write: Write) -> None:
    text = """
        def compute_score(data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
            right = solution_str == ground_truth
            return {"score": right + bonus, "acc": right, "pred": solution_str, "index": extra_info["index"],
                    "known": data_source == "openai/gsm8k"}
    """
    path = write("f.py", text)
    nested = {
        "data_source": "openai/gsm8k",
        "reward_model": {"ground_truth": "4"},
        "extra_info": {"index": 7},
    }
    outcome = call(resolve(path, {"bonus": 0.5}), [Sample((), "4", columns=nested)])[0]
    assert (outcome.value, outcome.parts) == (1.5, {"acc": 1, "index": 7, "known": 1})
    flat = Sample((), "4", columns={"answer": "4", "index": 8}, part="openai/gsm8k")
    outcome = call(resolve(path), [flat])[0]
    assert (outcome.value, outcome.parts) == (1.0, {"acc": 1, "index": 8, "known": 1})
    outcome = call(resolve(path), [Sample((), "4", columns={"index": 1})])[0]
    assert "has no column 'ground_truth'" in outcome.detail


def test_async_calls_of_a_group_run_together(write: Write, samples: list[Sample]) -> None:
    text = """
        import asyncio
        together = asyncio.Barrier(3)
        async def f(sample):
            await asyncio.wait_for(together.wait(), 60)
            await asyncio.sleep(0.2)
            if sample.sample_index == 1:
                raise TimeoutError("the service said no")
            return sample.sample_index
    """
    outcomes = call(resolve(write("f.py", text)), samples)
    assert [outcome.kind for outcome in outcomes] == ["ok", "error", "ok"]
    assert all(outcome.seconds >= 0.2 for outcome in outcomes)


def test_async_limit_costs_only_the_slow_sample(write: Write, samples: list[Sample]) -> None:
    text = """
        import asyncio
        async def f(sample):
            await asyncio.sleep(5 * (sample.sample_index == 1))
            return 1
    """
    outcomes = call(resolve(write("f.py", text)), samples, timeout=0.2)
    assert [outcome.kind for outcome in outcomes] == ["ok", "timeout", "ok"]
    assert outcomes[1].detail == "no answer within 0.2 s"


def test_async_trl(write: Write, samples: list[Sample]) -> None:
    text = """
        import asyncio
        async def f(completions, **kwargs):
            await asyncio.sleep(0)
            return [1.0, 2.0, None]
    """
    assert [outcome.value for outcome in call(resolve(write("f.py", text)), samples)] == [1.0, 2.0, None]


def test_before_is_called_per_sample_or_per_list(write: Write, samples: list[Sample]) -> None:
    seen: list[int] = []
    single = resolve(write("f.py", "def f(sample): return 1\n"))
    call(single, samples, before=lambda sample: seen.append(sample.sample_index))
    assert seen == [0, 1, 2]
    seen.clear()
    several = resolve(write("g.py", "def g(samples): return [1] * len(samples)\n"))
    call(several, samples, before=lambda sample: seen.append(sample.sample_index))
    assert seen == [0]


def test_nothing_to_score(write: Write) -> None:
    assert call(resolve(write("f.py", "def f(samples): return []\n")), []) == []
