from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from align.config.rewards import RewardsConfig
from align.errors import RewardError
from align.reward.bank.terms import assignments, load_terms, probes, smoke
from align.reward.calls.child import ChildProcess
from align.reward.contract import Sample
from align.types import Prompt

Write = Callable[[str, str], str]


def has(column: str) -> Callable[[Mapping[str, Any]], bool]:
    """Stands for the expression compiler: an expression is the name of a column that must be there."""
    return lambda columns: column in columns


def config(**terms: Any) -> RewardsConfig:
    return RewardsConfig.model_validate({"terms": terms, "timeout": 7})


PROMPT = Prompt("sums/0", ({"role": "user", "content": "2+2?"},), [1], {"answer": "4"}, part="sums")


def test_settings_reach_the_terms(write: Write) -> None:
    slow = write("slow.py", "from align.reward import reward\n@reward(timeout=3)\ndef slow(s): return 1\n")
    terms = load_terms(
        config(
            main={"function": "exact_answer", "weight": 2, "args": {"extract": "boxed"}, "where": "answer"},
            own={"function": slow, "clip": [-1, 1]},
            mine={"function": slow, "timeout": 0.5},
        ),
        has,
    )
    assert [(term.name, term.weight, term.timeout) for term in terms] == [
        ("main", 2, 7),
        ("own", 1, 3),
        ("mine", 1, 0.5),
    ]
    assert terms[0].function.args == {"extract": "boxed"}
    assert terms[0].covers({"answer": 1})
    assert not terms[0].covers({"text": 1})
    assert terms[1].clip == (-1, 1)
    assert terms[1].covers({})


def test_a_term_that_cannot_be_found_names_recipe_and_key() -> None:
    with pytest.raises(RewardError) as caught:
        load_terms(config(a={"function": "refusl"}), has, file="recipe.yaml")
    assert (caught.value.file, caught.value.key) == ("recipe.yaml", "rewards.terms.a.function")


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "at least 1"),
        ({"a/b": {"function": "length"}}, "may hold only letters"),
        ({"a": {"function": "length", "clip": [1, -1]}}, "low < high"),
        ({"a": {"function": "length", "weight": float("inf")}}, "finite"),
        ({"a": {"function": "length", "wieght": 1}}, "Extra inputs"),
        ({"a": {"weight": 1}}, "exactly one of function and model"),
        ({"a": {"function": "length", "model": "rm"}}, "exactly one of function and model"),
        ({"a": {"function": "length", "calibration": "saved"}}, "a function has none"),
        ({"a": {"function": "length", "backend": "torch"}}, "belongs to a model term"),
        ({"a": {"model": "rm", "args": {"n": 1}, "timeout": 3}}, "args, timeout belongs to a function"),
        ({"a": {"model": "rm", "constraint": {"at_least": 0}, "weight": 2}}, "has no weight"),
        ({"a": {"model": "rm", "constraint": {"at_least": 0}, "calibration": "running"}}, "mean at 0"),
        ({"a": {"model": "rm", "constraint": {"at_least": 0, "initial": 11}}}, "must not be above max"),
        ({"a": {"model": "rm", "constraint": {"at_least": 0}}}, "needs combine: constrained"),
    ],
)
def test_bad_settings_are_refused(terms: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RewardsConfig.model_validate({"terms": terms})


def test_constrained_needs_a_constraint() -> None:
    with pytest.raises(ValidationError, match="needs a term with a constraint"):
        RewardsConfig.model_validate({"combine": "constrained", "terms": {"a": {"function": "length"}}})


def test_a_model_term_reads_the_calibration_of_the_model_found(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "calibration.json").write_text(
        '{"mean": 1.0, "std": 2.0, "quantiles": {"0.5": 1.0}, "count": 3}'
    )

    def final(model: str) -> str:
        return f"{model}/final"

    path = str(tmp_path)
    [term] = load_terms(config(safe={"model": path, "calibration": "saved"}), has, find_model=final)
    assert (term.function, term.model) == (None, path)
    assert term.saved is not None
    assert (term.saved.mean, term.saved.std) == (1.0, 2.0)
    [plain] = load_terms(config(safe={"model": "org/name"}), has, find_model=final)
    assert plain.saved is None
    with pytest.raises(RewardError, match="has no calibration") as caught:
        load_terms(config(safe={"model": path, "calibration": "quantiles"}), has)
    assert caught.value.key == "rewards.terms.safe.calibration"


def test_memory_of_a_term_or_of_all(write: Write) -> None:
    tree = {"terms": {"a": {"function": "length", "memory_mib": 100}, "b": {"function": "length"}}}
    for memory, expected in (({}, [100, 2048]), ({"memory_mib": 300}, [100, 300])):
        terms = load_terms(RewardsConfig.model_validate(tree | memory), has)
        assert [term.memory_mib for term in terms] == expected


def test_probes_are_two_per_prompt() -> None:
    samples = probes([PROMPT], max_new_tokens=32)
    assert [sample.sample_index for sample in samples] == [0, 1]
    assert all(sample["answer"] == "4" and sample.max_new_tokens == 32 for sample in samples)
    assert len({sample.completion for sample in samples}) == 2


def test_shipped_rewards_pass_the_smoke_call() -> None:
    terms = load_terms(
        config(
            answer={"function": "exact_answer"},
            form={"function": "format", "args": {"pattern": "boxed"}},
            size={"function": "length", "args": {"buffer": 8}},
            loops={"function": "repetition"},
            refused={"function": "refusal:refused"},
        ),
        has,
    )
    smoke(terms, probes([PROMPT], max_new_tokens=32))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def f(sample): return sample['solution']", "has no column 'solution'"),
        ("def f(sample): return 'good'", "returned str where a number"),
        ("def f(sample): return float('nan')", "returned nan"),
        ("def f(sample): return 1 / 0", "ZeroDivisionError"),
        ("def f(samples): return [1.0]", "returned 1 scores for 2 samples"),
        ("def f(completions, **kwargs): return 1.0", "returned float where a list of 2 scores"),
    ],
)
def test_smoke_call_raises_for_a_broken_term(write: Write, body: str, message: str) -> None:
    path = write("f.py", body + "\n")
    terms = load_terms(config(mine={"function": path}), has)
    with pytest.raises(RewardError, match=message) as caught:
        smoke(terms, probes([PROMPT], max_new_tokens=32), file="recipe.yaml")
    assert "term 'mine' failed its start-up call on row sums/0" in caught.value.message
    assert (caught.value.file, caught.value.key) == ("recipe.yaml", "rewards.terms.mine")
    assert caught.value.exit_code == 2
    assert f"`align rewards test {path}:f`" in str(caught.value)


TEXT = replace(PROMPT, from_text=True)
SAYS_LENGTH = "def f(completions, **kwargs): return [float(len(each)) for each in completions]"


@pytest.mark.parametrize(
    ("body", "prompt", "told"),
    [
        (SAYS_LENGTH, PROMPT, "gives 1 to each of 10 different answers"),
        (SAYS_LENGTH, TEXT, ""),
        ("def f(sample): return 0.5", PROMPT, "gives 0.5 to each of 10"),
        ("def f(sample): return None", PROMPT, "abstains on each of 10"),
        ("def f(samples): return [0.0] * len(samples)", PROMPT, "gives 0 to each of 10"),
        ("def f(sample): return float('4' == sample.completion)", PROMPT, ""),
        ("def f(sample): return float('boxed{4}' in sample.completion)", PROMPT, ""),
        ("def f(sample): return -float(sample.truncated)", PROMPT, ""),
        ("def f(samples):\n    said = [s.completion for s in samples]\n"
         "    return [float(said.count(s) == 1) for s in said]", PROMPT, ""),
        ("def f(sample): return 1 / (sample.completion[:3] in ('The', 'I d'))", PROMPT, "gives 1 to each"),
    ],
)  # fmt: skip
def test_a_term_that_never_moves_is_a_warning(
    write: Write, caplog: pytest.LogCaptureFixture, body: str, prompt: Prompt, told: str
) -> None:
    path = write("f.py", body + "\n")
    terms = load_terms(config(mine={"function": path}), has)
    smoke(terms, probes([prompt], max_new_tokens=32), file="recipe.yaml")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == bool(told)
    for message in messages:
        assert message.startswith(f"recipe.yaml: rewards.terms.mine: {told}")
        assert f"`align rewards test {path}:f`" in message
    if told and body == SAYS_LENGTH:
        assert "it gets completions as messages" in messages[0]


def test_one_prompt_on_which_a_term_moves_is_enough(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write("f.py", "def f(sample): return float(sample.get('answer') == sample.completion)\n")
    other = Prompt("sums/1", PROMPT.messages, [1], part="sums")
    terms = load_terms(config(mine={"function": path}), has)
    smoke(terms, probes([other, PROMPT], max_new_tokens=32))
    assert not caplog.records


def test_steps_of_the_run_reach_the_function(write: Write) -> None:
    body = "def f(completions, trainer_state, **kw): return [trainer_state.max_steps] * len(completions)\n"
    terms = load_terms(config(mine={"function": write("f.py", body)}), has, max_steps=40)
    with ChildProcess(assignments(terms)) as child:
        [outcome] = child.score("mine", [Sample((), "x")], step=3)
    assert outcome.value == 40


def test_smoke_call_leaves_rows_out_of_scope_alone(write: Write) -> None:
    path = write("f.py", "def f(sample): return float(sample['solution'])\n")
    terms = load_terms(config(mine={"function": path, "where": "solution"}), has)
    smoke(terms, probes([PROMPT], max_new_tokens=32))
    with pytest.raises(RewardError):
        smoke(terms, [Sample((), "x", columns={"solution": "words"})])


def test_smoke_call_compares_the_answers_to_one_prompt(write: Write) -> None:
    path = write("f.py", "def f(samples):\n    [_] = {s.prompt_id for s in samples}\n    return [1, 1]\n")
    other = Prompt("sums/1", PROMPT.messages, [1], part="sums")
    smoke(load_terms(config(mine={"function": path}), has), probes([PROMPT, other], max_new_tokens=32))


def test_a_missing_column_has_one_remedy() -> None:
    terms = load_terms(config(right={"function": "exact_answer"}), has)
    with pytest.raises(RewardError, match="has no column 'answer'") as caught:
        smoke(terms, [Sample((), "4", columns={"solution": "4"})], file="r.yaml")
    assert str(caught.value).count("remedy:") == 1
    assert (caught.value.remedy or "").startswith("map it under data.parts")
    assert "mend it" not in (caught.value.remedy or "")
