from __future__ import annotations

import subprocess
import sys

import pytest

from align.errors import RewardError
from align.reward import Sample, reward
from align.types import Completion, Prompt


def test_sample_of_a_prompt_and_its_completion() -> None:
    prompt = Prompt("sums/7", ({"role": "user", "content": "2+2?"},), [1, 2], {"answer": "4"}, part="sums")
    completion = Completion("sums/7", 3, [5, 6, 7], [0.0] * 3, "it is 4", "length", weight_version=9, seed=1)
    sample = Sample.of(prompt, completion, max_new_tokens=3)
    assert sample.completion == "it is 4"
    assert sample.token_ids == [5, 6, 7]
    assert sample["answer"] == "4"
    assert (sample.prompt_id, sample.sample_index, sample.part) == ("sums/7", 3, "sums")
    assert sample.truncated
    assert sample.max_new_tokens == 3


@pytest.mark.parametrize("text", [False, True])
def test_a_sample_says_whether_its_prompt_was_text(text: bool) -> None:
    prompt = Prompt("sums/7", ({"role": "user", "content": "2+2?"},), [1], from_text=text)
    completion = Completion("sums/7", 0, [5], [0.0], "4", "stop", weight_version=0, seed=1)
    assert Sample.of(prompt, completion, max_new_tokens=3).prompt_from_text is text


def test_missing_column_names_what_there_is() -> None:
    sample = Sample((), "x", columns={"answer": 1, "level": 2}, part="maths")
    assert "answer" in sample
    assert "solution" not in sample
    assert sample.get("solution", "none") == "none"
    with pytest.raises(RewardError, match=r"part 'maths' has no column 'solution' .*answer, level") as caught:
        sample["solution"]
    assert caught.value.key == "solution"
    assert caught.value.remedy


def test_sample_is_read_only() -> None:
    with pytest.raises(AttributeError):
        Sample((), "x").completion = "y"  # type: ignore[misc]


def test_decorator_leaves_the_function_as_it_is() -> None:
    @reward
    def plain(sample: Sample) -> float:
        return 0.5

    @reward(name="other", timeout=3, batched=True)
    def named(samples: list[Sample]) -> list[float]:
        return [0.25 for _ in samples]

    assert plain(Sample((), "")) == 0.5
    assert named([Sample((), "")]) == [0.25]
    assert plain.__align_reward__.name == "plain"  # type: ignore[attr-defined]
    assert named.__align_reward__.name == "other"  # type: ignore[attr-defined]
    assert named.__align_reward__.timeout == 3  # type: ignore[attr-defined]


def test_importing_the_contract_is_light() -> None:
    code = (
        "import align.reward, sys;"
        "heavy = {'torch', 'numpy', 'ray', 'transformers', 'datasets', 'pydantic', 'sympy'};"
        "heavy &= set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
