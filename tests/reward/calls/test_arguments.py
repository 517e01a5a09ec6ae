"""Functions written for TRL, verl, OpenRLHF and verifiers get what they get there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from align.reward.calls.arguments import Progress
from align.reward.calls.score import call
from align.reward.contract import Sample
from align.reward.functions.registry import resolve

Write = Callable[[str, str], str]


@pytest.fixture
def texts(samples: list[Sample]) -> list[Sample]:
    """The same answers to a row whose prompt is text; the recipe sets a system message."""
    system = {"role": "system", "content": "Be brief."}
    return [replace(sample, prompt=(system, *sample.prompt), prompt_from_text=True) for sample in samples]


def values(spec: str, samples: list[Sample], **args: Any) -> list[float | None]:
    outcomes = call(resolve(spec, args), samples)
    assert all(outcome.kind in {"ok", "abstain"} for outcome in outcomes), outcomes
    return [outcome.value for outcome in outcomes]


def test_trl_gets_texts_for_a_text_and_messages_for_messages(
    write: Write, samples: list[Sample], texts: list[Sample]
) -> None:
    path = write(
        "f.py",
        "def size(completions, **kw): return [len(each) for each in completions]\n"
        "def asked(prompts, completions): return [float(each == '2+2?') for each in prompts]\n"
        "def turns(prompts, **kw): return [len(each) for each in prompts]\n",
    )
    assert values(f"{path}:size", texts) == [1, 1, 12]
    assert values(f"{path}:size", samples) == [1, 1, 1]
    assert values(f"{path}:asked", texts) == [1, 1, 1]
    assert values(f"{path}:turns", samples) == [1, 1, 1]
    assert values(f"{path}:turns", texts) == [4, 4, 4]


def test_a_call_never_mixes_texts_and_messages(
    write: Write, samples: list[Sample], texts: list[Sample]
) -> None:
    path = write(
        "f.py",
        "def f(prompts, completions, **kw):\n"
        "    [form] = {type(each) for each in completions}\n"
        "    assert {type(each) for each in prompts} == {form}\n"
        "    return [len(completions) + 10 * (form is str)] * len(completions)\n",
    )
    assert values(path, [samples[0], texts[1], texts[2]]) == [1, 12, 12]


@pytest.mark.parametrize(
    ("body", "text", "told"),
    [
        ("c[0]['content'] == '4'", True, "the row's prompt is text, so completions are texts"),
        ("c.startswith('4')", False, "the row's prompt is messages, so a completion is"),
    ],
)
def test_a_function_for_the_other_form_is_told_of_it(
    write: Write, samples: list[Sample], texts: list[Sample], body: str, text: bool, told: str
) -> None:
    path = write("f.py", f"def f(completions, **kw): return [float({body}) for c in completions]\n")
    outcome = call(resolve(path), texts if text else samples)[0]
    assert outcome.kind == "error"
    last = outcome.detail.splitlines()[-1]
    assert last.startswith(("TypeError: ", "AttributeError: "))
    assert told in last


def test_trainer_state_counts_steps(write: Write, samples: list[Sample]) -> None:
    path = write(
        "f.py",
        "def f(completions, trainer_state, **kw):\n"
        "    share = trainer_state.global_step / trainer_state.max_steps\n"
        "    return [share] * len(completions)\n",
    )
    assert [each.value for each in call(resolve(path), samples, progress=Progress(3, 12))] == [0.25] * 3
    assert [each.value for each in call(resolve(path), samples)] == [0.0] * 3


COLUMNS = {"solution": "$0.5$", "answer": "1/2"}
RIGHT = "<think>half</think>It is \\boxed{\\frac{1}{2}}"
WRONG = "It is \\boxed{3} \\boxed{3} \\boxed{3}"


@pytest.mark.parametrize(
    ("name", "args", "scores"),
    [
        ("accuracy_reward", {}, [1, 0]),
        ("reasoning_accuracy_reward", {}, [1, 0]),
        ("think_format_reward", {}, [1, 0]),
        ("get_soft_overlong_punishment", {"max_completion_len": 100, "soft_punish_cache": 20}, [-0.5, 0]),
        # ten equal tokens have eight 3-grams, seven of them repeated; the 90 are all equal as well
        ("get_repetition_penalty_reward", {}, [-(1 - 1 / 88), -(1 - 1 / 8)]),
        # right at 90 of 100 tokens: 0.5 + 0.25 (1 + cos 0.9 π); wrong at 10: -0.5 - 0.25 (1 + cos 0.1 π)
        ("get_cosine_scaled_reward", {"max_len": 100}, [0.512236, -0.987764]),
    ],
)
def test_rewards_shipped_with_trl_by_dotted_path(
    name: str, args: dict[str, Any], scores: list[float]
) -> None:
    rows = [
        Sample((), RIGHT, [1] * 90, columns=COLUMNS),
        Sample((), WRONG, [1] * 10, columns=COLUMNS),
    ]
    assert values(f"trl.rewards:{name}", rows, **args) == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize(
    "source",
    [
        "def compute_score(model_output, ground_truth): return float(model_output == ground_truth)",
        "def compute_score(predict_str, ground_truth): return float(predict_str == ground_truth)",
        "def f(response, ground_truth): return float(response == ground_truth)",
        "def compute_score(**kw): return float(kw['solution_str'] == kw['ground_truth'])",
        "def compute_score(solution_str, extra_info): return float(solution_str == extra_info['answer'])",
        # as verl's own graders do: the score, and notes behind it
        "def compute_score(solution_str, ground_truth): return (solution_str == ground_truth, 'note')",
        "async def compute_score(data_source, solution_str, ground_truth, extra_info, **kw):\n"
        "    assert not kw\n    return {'score': float(solution_str == ground_truth), 'pred': solution_str}",
        "def compute_score(data_sources, solution_strs, ground_truths, extra_infos, **kw):\n"
        "    assert data_sources == ['sums'] * len(solution_strs) and not kw\n"
        "    return [{'score': float(a == b)} for a, b in zip(solution_strs, ground_truths)]",
        "def compute_score(model_outputs, ground_truths):\n"
        "    import numpy\n    return numpy.array([a == b for a, b in zip(model_outputs, ground_truths)])",
        "def reward_func(queries, prompts, labels):\n"
        "    import torch\n"
        "    assert prompts == ['2+2?'] * len(queries)\n"
        "    return torch.tensor([float(q[len(p):] == a) for q, p, a in zip(queries, prompts, labels)])",
        "def reward_func(queries, prompts, labels, **kwargs):\n"
        "    import torch\n"
        "    found = torch.tensor([float(q.endswith('?' + a)) for q, a in zip(queries, labels)])\n"
        "    return {'rewards': found, 'scores': found / 2, 'extra_logs': {'size': found + 1}}",
        "def reward_fn(samples, prompts, outputs, answer, **kwargs):\n"
        "    assert samples == [p + o for p, o in zip(prompts, outputs)] and prompts[0] == '2+2?'\n"
        "    return [float(o == a) for o, a in zip(outputs, answer)]",
        "from functools import partial\n"
        "def _score(completions, answer, unit, **kwargs):\n"
        "    texts = [c if isinstance(c, str) else c[-1]['content'] for c in completions]\n"
        "    return [unit * (t == a) for t, a in zip(texts, answer)]\n"
        "f = partial(_score, unit=1.0)",
        "def f(completion, answer, **kwargs): return float(completion[-1]['content'] == answer)",
        "async def f(completion, answer): return float(completion[-1]['content'] == answer)",
        "def f(completion: str, answer): return float(completion == answer)",
        "def f(prompt, completion, answer, parser, state, task, info):\n"
        "    assert (prompt[-1]['content'], task, info) == ('2+2?', 'sums', {})\n"
        "    assert state['completion'] == completion and state['answer'] == answer\n"
        "    return float(parser.parse_answer(completion) == answer)",
        "def f(state): return float(state['completion'][-1]['content'] == state['answer'])",
        "def f(completion, level, answer): return level * (completion[-1]['content'] == answer)",
    ],
)
@pytest.mark.parametrize("text", [False, True])
def test_functions_of_other_trainers_run(
    write: Write, samples: list[Sample], texts: list[Sample], source: str, text: bool
) -> None:
    path = write("f.py", source + "\n")
    assert values(path, texts if text else samples) == [1, 0, 0]


def test_what_openrlhf_returns_beside_the_rewards_is_kept(write: Write, samples: list[Sample]) -> None:
    text = """
        import torch
        def reward_func(queries, prompts, labels):
            one = torch.ones(len(queries))
            logs = {"size": one * 2, "steps": one, "note": "all"}
            return {"rewards": one, "scores": one / 2, "extra_logs": logs}
    """
    outcome = call(resolve(write("f.py", text)), samples)[1]
    assert (outcome.value, outcome.parts) == (1, {"scores": 0.5, "size": 2})


@pytest.mark.parametrize(
    ("source", "column"),
    [
        ("def f(solution_str, ground_truth): return 1", "ground_truth"),
        ("def f(solution_strs, ground_truths): return [1] * len(solution_strs)", "ground_truth"),
        ("def f(queries, prompts, labels): return [1] * len(queries)", "label"),
        ("def f(completion, answer): return 1", "answer"),
        ("def f(completion, rubric): return 1", "rubric"),
        ("def f(completions, rubric): return [1] * len(completions)", "rubric"),
    ],
)
def test_a_column_that_a_row_lacks_is_named(write: Write, source: str, column: str) -> None:
    outcome = call(resolve(write("f.py", source + "\n")), [Sample((), "x", columns={"index": 1})])[0]
    assert outcome.kind == "error"
    assert f"has no column {column!r} (its columns: index)" in outcome.detail


@pytest.mark.parametrize(
    ("returned", "detail"),
    [
        ("torch.tensor(1.0)", "returned Tensor where a list of 3 scores belongs"),
        ("numpy.float32(1)", "returned float32 where a list of 3 scores belongs"),
        ("{'rewards': torch.ones(2)}", "returned 2 scores for 3 samples"),
        ("{'rewards': torch.tensor([1.0, float('nan'), 1.0])}", "returned nan"),
        ("{'extra_logs': {}}", "returned dict where a list of 3 scores belongs"),
        ("(1 / (2 - i) for i in range(3))", "division by zero"),
    ],
)
def test_lists_that_are_none(write: Write, samples: list[Sample], returned: str, detail: str) -> None:
    path = write("f.py", f"import numpy, torch\ndef f(queries, prompts, labels):\n    return {returned}\n")
    outcomes = call(resolve(path), samples)
    assert any(outcome.kind == "error" for outcome in outcomes)
    if detail != "division by zero":  # which is tried again one by one
        assert detail in outcomes[1].detail
    else:
        assert all(
            "returned 3 scores for 1 samples" in each.detail or detail in each.detail for each in outcomes
        )


def test_columns_of_tensors(write: Write, samples: list[Sample]) -> None:
    path = write("f.py", "import torch\ndef f(completions, **kw): return torch.ones(len(completions), 1)\n")
    assert values(path, samples) == [1, 1, 1]


def test_a_plain_function_that_returns_a_coroutine_is_awaited(write: Write, samples: list[Sample]) -> None:
    text = """
        async def later(sample):
            return float(sample.completion == "4")
        f = lambda sample: later(sample)
    """
    assert values(write("f.py", text) + ":f", samples) == [1, 0, 0]


def test_of_a_tuple_the_first_entry_is_the_score_alone_and_in_a_list(
    write: Write, samples: list[Sample]
) -> None:
    path = write(
        "f.py",
        "def one(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    return float(solution_str == ground_truth), {'pred': solution_str}\n"
        "def many(data_sources, solution_strs, ground_truths, extra_infos=None):\n"
        "    return [(float(s == g), 'x') for s, g in zip(solution_strs, ground_truths)]\n",
    )
    judged = [replace(each, columns={"data_source": "d", "ground_truth": "4"}) for each in samples]
    assert values(f"{path}:one", judged) == [1, 0, 0]
    assert values(f"{path}:many", judged) == [1, 0, 0]


def test_a_file_inside_a_package_imports_what_lies_above_it(
    write: Write, tmp_path: Path, samples: list[Sample]
) -> None:
    (tmp_path / "pk" / "sub").mkdir(parents=True)
    for name, text in {
        "pk/__init__.py": "",
        "pk/helper.py": "K = 3.0\n",
        "pk/sub/__init__.py": "",
        "pk/sub/rw.py": "from ..helper import K\ndef mine(sample): return K\n",
    }.items():
        write(name, text)
    assert values(f"{tmp_path}/pk/sub/rw.py:mine", samples) == [3, 3, 3]
