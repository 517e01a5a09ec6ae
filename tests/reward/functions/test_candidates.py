"""What a file without a clear reward says of itself; modules by dotted path; what makes reward functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from align.errors import RewardError
from align.reward.contract import Sample
from align.reward.functions.registry import resolve

Write = Callable[[str, str], str]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\n", "it defines no function"),
        ("def f(a, b): ...\n", r"f\(a, b\) lacks sample, completions, completion, solution_str or queries"),
        ("def f(completon, **kw): ...\n", r"f\(completon, \*\*kwargs\): is 'completon' 'completion'\?"),
        ("def compute_score(text, ground_truth): ...\n", "lacks solution_str"),
        ("def f(text, ground_truths): ...\n", "lacks solution_strs"),
        ("def f(text, labels): ...\n", "lacks queries"),
        ("def f(text, answer): ...\n", "lacks completion"),
        ("class K: ...\n", r"K\(\) is a class without __call__"),
        ("def a(x): ...\ndef b(y): ...\n", r"a\(x\) lacks .*; b\(y\) lacks "),
    ],
)
def test_a_file_without_a_reward_says_what_its_functions_lack(write: Write, text: str, told: str) -> None:
    with pytest.raises(RewardError, match=f"no reward function found: .*{told}") as caught:
        resolve(write("f.py", text))
    assert caught.value.remedy is not None
    assert "compute_score(solution_str, ground_truth)" in caught.value.remedy
    assert "@reward" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("from trl.rewards import think_format_reward\n", "think_format_reward"),
        ("def get_it(k): return lambda completions, **kw: [k] * len(completions)\n", "get_it"),
        ("class Many:\n    def __call__(self, completions, **kw): return [1]\n", "Many"),
    ],
)
def test_what_must_be_named_is_in_the_remedy(write: Write, text: str, name: str) -> None:
    path = write("f.py", text)
    with pytest.raises(RewardError, match="no reward function found") as caught:
        resolve(path)
    assert caught.value.remedy == f"name the one that is meant, for example {path}:{name}"


@pytest.mark.parametrize(
    ("helper", "reward"),
    [
        ("def extract(completion): ...", "def score(completions, **kwargs): ..."),
        ("def right(completion, answer): ...", "def score(completions, answer): ..."),
        ("def extract(solution_str, method='strict'): ...", "def score(solution_str, ground_truth): ..."),
        ("def extract(completion): ...", "def score(completion, answer): ..."),
        ("def extract(solution_str): ...", "def score(solution_strs, ground_truths): ..."),
        ("def right(completion, answer): ...", "def score(queries, prompts, labels): ..."),
        ("def last(completion): ...", "def score(sample): ..."),
    ],
)
def test_a_helper_of_a_reward_is_none_itself(write: Write, helper: str, reward: str) -> None:
    path = write("f.py", f"{helper}\n{reward}\n")
    assert resolve(path).name == "score"
    name = helper.partition("(")[0].removeprefix("def ")
    assert resolve(f"{path}:{name}").name == name


def test_a_misspelt_function_has_a_suggestion(write: Write) -> None:
    path = write("f.py", "def right(sample): return 1.0\ndef other(sample): return 1.0\n")
    with pytest.raises(RewardError, match="has no function 'rihgt'") as caught:
        resolve(f"{path}:rihgt")
    assert caught.value.remedy == "did you mean 'right'?"
    with pytest.raises(RewardError) as caught:
        resolve(f"{path}:zzz")
    assert caught.value.remedy == "it has: right, other"


@pytest.mark.parametrize("spec", ["trl.rewards:think_format_reward", "trl.rewards.think_format_reward"])
def test_a_dotted_path_is_found_again_by_its_reference(spec: str) -> None:
    found = resolve(spec)
    assert (found.style.name, found.reference) == ("trl", "trl.rewards:think_format_reward")
    assert resolve(found.reference).function is found.function


def test_a_module_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_pack").mkdir()
    (tmp_path / "own_pack" / "scores.py").write_text(
        "def scores(sample): return 0.5\ndef b(sample): return 1.0\n"
    )
    (tmp_path / "own_alone.py").write_text("def f(sample): return 1.0\ndef g(sample): return 2.0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("/nowhere")  # restores sys.path afterwards
    assert resolve("own_pack.scores").reference == "own_pack.scores:scores"
    assert resolve("own_pack.scores:b").name == "b"
    assert resolve("own_alone:g").name == "g"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing_here.rewards:f", "no module named 'nothing_here', for the reward function"),
        ("trl.nothing_here:f", "no module named 'trl.nothing_here'"),
        ("trl.rewards:think_format_rewrd", "has no function 'think_format_rewrd'"),
        ("trl.rewards", "no reward function found: .*accuracy_reward is imported from"),
        ("nothing_here:f", "no reward function named 'nothing_here'"),
    ],
)
def test_a_dotted_path_that_leads_nowhere(spec: str, message: str) -> None:
    with pytest.raises(RewardError, match=message) as caught:
        resolve(spec, file="r.yaml", key="rewards.terms.a.function")
    assert caught.value.remedy


def test_a_module_that_fails_says_where_it_is_asked_for(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "own_broken.py").write_text("import nothing_here\n")
    (tmp_path / "own_raises.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for spec, message in (
        ("own_broken:f", "cannot be imported: ModuleNotFoundError: No module named 'nothing_here'"),
        ("own_raises:f", "cannot be imported: ZeroDivisionError"),
    ):
        with pytest.raises(RewardError, match=message) as caught:
            resolve(spec, file="r.yaml", key="rewards.terms.a.function")
        assert (caught.value.file, caught.value.key) == ("r.yaml", "rewards.terms.a.function")


def test_args_of_a_maker_go_into_the_making(write: Write) -> None:
    limit = {"max_completion_len": 100, "soft_punish_cache": 20}
    found = resolve("trl.rewards:get_soft_overlong_punishment", limit)
    assert (found.style.name, found.args, found.keywords) == ("trl", limit, {})
    assert found.function(completion_ids=[[1] * 90]) == [-0.5]
    again = resolve(found.reference, found.args)
    assert again.function(completion_ids=[[1] * 90]) == [-0.5]
    text = """
        class Longer:
            def __init__(self, than): self.than = than
            def __call__(self, sample): return float(len(sample.completion) > self.than)
    """
    longer = resolve(write("f.py", text) + ":Longer", {"than": 2})
    assert [longer.function(Sample((), answer)) for answer in ("ab", "abc")] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"max_len": 1}, "cannot be called with these args: missing a required argument"),
        ({"max_completion_len": 1, "soft_punish_cache": 1, "x": 1}, "unexpected keyword argument 'x'"),
    ],
)
def test_args_that_a_maker_does_not_take(args: dict[str, int], message: str) -> None:
    with pytest.raises(RewardError, match=message) as caught:
        resolve("trl.rewards:get_soft_overlong_punishment", args)
    assert caught.value.remedy is not None
    assert "max_completion_len, soft_punish_cache" in caught.value.remedy


def test_a_maker_that_fails_or_makes_something_else(write: Write) -> None:
    path = write(
        "f.py", "def get_a(): return 1 / 0\ndef get_b(): return 3\ndef get_c(): return lambda x, y: 1\n"
    )
    for name, message in (
        ("get_a", "failed: ZeroDivisionError"),
        ("get_b", "gives no reward function, but int"),
        ("get_c", r"gives no reward function, but function\(x, y\) lacks"),
    ):
        with pytest.raises(RewardError, match=message):
            resolve(f"{path}:{name}")
