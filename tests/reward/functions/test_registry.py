from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from align.errors import RewardError
from align.reward.contract import Sample
from align.reward.functions import registry
from align.reward.functions.registry import SHIPPED, discover, resolve

Write = Callable[[str, str], str]

NATIVE = """
    from align.reward import Sample, reward

    @reward(timeout=2.5)
    def good(sample: Sample, bonus: float = 0.0) -> float:
        \"\"\"Says yes.

        And more.
        \"\"\"
        return 1.0 + bonus
"""


def test_the_only_marked_function_of_a_file(write: Write) -> None:
    path = write("mine.py", NATIVE)
    found = resolve(path, {"bonus": 1})
    assert (found.name, found.style.name, found.batched, found.awaits) == ("good", "native", False, False)
    assert found.timeout == 2.5
    assert found.doc == "Says yes."
    assert found.reference == f"{Path(path).resolve()}:good"
    assert found.args == {"bonus": 1}
    assert resolve(found.reference, found.args).doc == "Says yes."


@pytest.mark.parametrize(
    ("signature", "style", "batched"),
    [
        ("def f(sample)", "native", False),
        ("async def f(sample, k=1)", "native", False),
        ("def f(samples)", "native", True),
        ("def f(prompts, completions, **kwargs)", "trl", True),
        ("def f(completions, answer, **kwargs)", "trl", True),
        ("def f(completion_ids, **kwargs)", "trl", True),
        ("def f(data_source, solution_str, ground_truth, extra_info=None)", "verl", False),
        ("def f(solution_str, ground_truth, method='strict')", "verl", False),
        ("def f(model_output, ground_truth, timeout_score=0)", "verl", False),
        ("def f(data_sources, solution_strs, ground_truths, extra_infos)", "verl", True),
        ("def compute_score(**kwargs)", "verl", False),
        ("def f(queries, prompts, labels, **kwargs)", "openrlhf", True),
        ("def reward_fn(samples, prompts, outputs, **kwargs)", "trlx", True),
        ("def f(completion, answer, **kwargs)", "verifiers", False),
        ("async def f(parser, completion)", "verifiers", False),
        ("def f(state)", "verifiers", False),
        ("def f(sample, answer=None, completion=None)", "native", False),
    ],
)
def test_styles_are_told_by_parameter_names(write: Write, signature: str, style: str, batched: bool) -> None:
    found = resolve(write("f.py", f"{signature}:\n    return 0.0\n"))
    assert (found.style.name, found.batched) == (style, batched)
    assert found.awaits == signature.startswith("async")


def test_annotation_makes_a_native_function_too(write: Write) -> None:
    found = resolve(
        write(
            "f.py",
            "from align.reward import Sample\ndef f(items: list[Sample]) -> list[float]:\n    return []\n",
        )
    )
    assert found.batched


def test_callable_object_by_name(write: Write) -> None:
    text = """
        class Limit:
            def __call__(self, completion_ids, **kwargs):
                return [-float(len(ids) > 2) for ids in completion_ids]
        limit = Limit()
    """
    assert resolve(write("f.py", text) + ":limit").style.name == "trl"


def test_file_beats_helper_functions(write: Write) -> None:
    text = """
        from math import floor
        def _hidden(sample): return 1.0
        def helper(text): return len(text)
        def chosen(sample): return helper(sample.completion)
    """
    assert resolve(write("f.py", text)).name == "chosen"


def test_a_helper_beside_the_file_is_imported_and_not_listed(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "_words.py").write_text("def count(text): return len(text.split())\n")
    (tmp_path / "rewards" / "wordy.py").write_text(
        "from ._words import count\ndef wordy(sample): return float(count(sample.completion))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert resolve("wordy").function(Sample((), "one two three")) == 3.0
    specs = {listed.spec for listed in discover()}
    assert "wordy" in specs
    assert not any("_words" in spec for spec in specs)
    lost = write("lost.py", "from ._nowhere import count\ndef f(sample): return 1.0\n")
    with pytest.raises(RewardError, match=r"ModuleNotFoundError.*\(line 1\)"):
        resolve(lost)


def test_function_named_like_the_file_or_compute_score_is_the_default(write: Write) -> None:
    text = "def a(sample): return 1.0\ndef pair(sample): return 2.0\n"
    assert resolve(write("pair.py", text)).name == "pair"
    text = "def extract(sample): ...\ndef compute_score(solution_str, ground_truth): return 1.0\n"
    assert resolve(write("gsm.py", text)).name == "compute_score"


def test_decorator_name_finds_a_function(write: Write) -> None:
    path = write(
        "f.py", "from align.reward import reward\n@reward(name='short')\ndef long_name(s): return 1.0\n"
    )
    found = resolve(f"{path}:short")
    assert found.name == "short"
    assert resolve(found.reference).name == "short"


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("import nothing_of_this_name\n", "", r"cannot be imported: ModuleNotFoundError.*\(line 1\)"),
        ("x = 1\nx.y\ndef f(sample): ...\n", "", r"AttributeError.*\(line 2\)"),
        ("def f(sample)\n    return 1\n", "", r"SyntaxError: expected ':' \(line 1\)"),
        ("def f(a, b): return 1.0\n", "", "no reward function found"),
        ("def f(a, b): return 1.0\n", ":f", "is not a reward function"),
        ("def f(sample): ...\ndef g(sample): ...\n", "", r"several reward functions \(f, g\)"),
        ("def f(sample): ...\n", ":h", "has no function 'h'"),
        ("def f(sample, pattern): ...\n", "", "needs the argument 'pattern'"),
    ],
)
def test_unusable_files_say_why(write: Write, text: str, spec: str, message: str) -> None:
    path = write("bad.py", text)
    with pytest.raises(RewardError, match=message) as caught:
        resolve(path + spec)
    assert caught.value.file == path or caught.value.file == str(Path(path).resolve())
    assert caught.value.remedy
    assert caught.value.exit_code == 2


def test_missing_file_and_unknown_name_point_at_the_recipe() -> None:
    with pytest.raises(RewardError, match=r"no such reward file: no/such\.py") as caught:
        resolve("no/such.py", file="r.yaml", key="rewards.terms.a.function")
    assert (caught.value.file, caught.value.key) == ("r.yaml", "rewards.terms.a.function")
    with pytest.raises(RewardError, match="no reward function named 'exact_anser'") as caught:
        resolve("exact_anser", file="r.yaml", key="rewards.terms.a.function")
    assert caught.value.remedy == "did you mean 'exact_answer'?"


def test_unknown_argument_has_a_suggestion(write: Write) -> None:
    path = write("mine.py", NATIVE)
    with pytest.raises(RewardError, match="takes no argument 'bonsu'") as caught:
        resolve(path, {"bonsu": 1})
    assert caught.value.remedy == "did you mean 'bonus'?"
    with pytest.raises(RewardError, match="takes no argument 'sample'"):
        resolve(path, {"sample": 1})


def test_working_directory_comes_before_the_shipped_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve("exact_answer").reference.startswith(str(SHIPPED))
    (tmp_path / "rewards").mkdir()
    own = tmp_path / "rewards" / "exact_answer.py"
    own.write_text("def exact_answer(sample): return 0.5\n")
    monkeypatch.chdir(tmp_path)
    assert resolve("exact_answer").reference == f"{own}:exact_answer"
    assert resolve("refusal:refused").name == "refused"


def test_entry_point_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_rewards.py").write_text(
        "def polite(sample):\n    '''Says please.'''\n    return float('please' in sample.completion)\n"
    )
    info = tmp_path / "their_rewards-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-rewards\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[align.rewards]\npolite = their_rewards:polite\nwhole = their_rewards\nbroken = their_rewards:gone\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("polite").doc == "Says please."
    assert resolve(resolve("polite").reference).name == "polite"
    assert resolve("whole").reference == "whole:polite"
    with pytest.raises(RewardError, match="entry point cannot be imported: AttributeError"):
        resolve("broken")
    listed = {one.spec: one for one in discover()}
    assert listed["polite"].source == "their_rewards:polite"
    assert isinstance(listed["broken"].found, RewardError)


def test_discover_lists_what_can_be_resolved_and_what_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "broken.py").write_text("import nothing_of_this_name\n")
    monkeypatch.chdir(tmp_path)
    listed = {one.spec: one.found for one in discover()}
    assert {"exact_answer", "format", "length", "refusal", "refusal:refused", "repetition"} <= set(listed)
    assert isinstance(listed["broken"], RewardError)
    for spec, found in listed.items():
        if not isinstance(found, RewardError) and spec != "format":
            assert resolve(spec).reference == found.reference


@pytest.mark.parametrize("hangs", ["while True: pass", "import time; time.sleep(1000)"])
def test_a_file_that_hangs_while_it_is_imported_is_given_up(write: Write, monkeypatch, hangs: str) -> None:
    monkeypatch.setattr(registry, "IMPORT_SECONDS", 0.2)
    path = write("stuck.py", f"from align.reward import reward\n{hangs}\n")
    with pytest.raises(
        RewardError, match=r"cannot be imported: TimeoutError: not done after 0.2 s \(line 2\)"
    ):
        resolve(path)
