"""Bad input: one clear error with file, key and remedy, exit code 2, nothing started, no traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "recipes" / "quickstart" / "policy"
ROWS = [
    {"prompt": f"What is {i} + 1?", "answer": str(i + 1), "completion": f"Answer: {i + 1}"} for i in range(8)
]
KINDS = ("sft", "grpo", "eval")


def recipe(kind: str) -> dict[str, Any]:
    """A small right recipe."""
    common: dict[str, Any] = {
        "kind": kind,
        "name": "bad",
        "policy": {"path": str(POLICY), "dtype": "float32"},
    }
    if kind == "eval":
        return {**common, "eval": {"parts": {"sums": {"path": "rows.jsonl", "metric": "exact_answer"}}}}
    common["policy"]["init"] = "random"
    if kind == "sft":
        return {**common, "data": {"path": "rows.jsonl"}, "sft": {"batch_size": 2}}
    return {
        **common,
        "data": {"path": "rows.jsonl"},
        "rewards": {"terms": {"right": {"function": "exact_answer"}}},
        "grpo": {"prompts_per_step": 2, "group_size": 2, "max_prompt_tokens": 64},
    }


@pytest.fixture
def refused(align: Callable[..., Any], work: Path) -> Callable[..., str]:
    """Write recipe and rows, run the command, check the common promises; gives the message."""
    (work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def run(kind: str, *overrides: str, tree: dict[str, Any] | None = None) -> str:
        file = work / f"{kind}.yaml"
        file.write_text(yaml.safe_dump(tree or recipe(kind)))
        done = align(kind, str(file), *overrides)
        message = str(done.stderr)
        assert done.exit_code == 2, message + str(done.exception)
        assert message.startswith("error: ")
        assert "\n  remedy: " in message
        assert len(message.splitlines()) <= 3
        assert "Traceback" not in message
        assert not (work / "runs").exists(), "the run was started"
        return message

    return run


# Recipes


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_key(refused: Callable[..., str], kind: str) -> None:
    message = refused(kind, "policy.dtipe=float32")
    assert f"{kind}.yaml: policy.dtipe: unknown key 'dtipe'" in message
    assert "did you mean 'dtype'?" in message


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_type(refused: Callable[..., str], kind: str) -> None:
    assert f"{kind}.yaml: seed: must be a whole number, got 'many'" in refused(kind, "seed=many")


def test_group_of_one(refused: Callable[..., str]) -> None:
    message = refused("grpo", "grpo.group_size=1")
    assert "grpo.yaml: grpo.group_size: must be greater than or equal to 2, got 1" in message
    assert "advantages are relative to the group" in message


@pytest.mark.parametrize("kind", [*KINDS, "run", "inspect-data"])
def test_missing_recipe(align: Callable[..., Any], kind: str, work: Path) -> None:
    done = align(kind, "absent.yaml")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: absent.yaml: no such recipe\n  remedy: ")


def test_a_recipe_of_another_kind(refused: Callable[..., str]) -> None:
    message = refused("grpo", tree=recipe("sft"))
    assert "kind is 'sft', expected 'grpo'" in message
    assert "run it with `align sft`" in message


# Data


def data_key(kind: str) -> str:
    return "eval.parts.sums" if kind == "eval" else "data"


@pytest.mark.parametrize("kind", KINDS)
def test_missing_data(refused: Callable[..., str], kind: str) -> None:
    message = refused(kind, f"{data_key(kind)}.path=./absent.jsonl")
    assert f"{kind}.yaml: {data_key(kind)}.path: " in message
    assert "absent.jsonl" in message


@pytest.mark.parametrize("kind", KINDS)
def test_empty_data(refused: Callable[..., str], kind: str, work: Path) -> None:
    (work / "empty.jsonl").write_text("")
    message = refused(kind, f"{data_key(kind)}.path=./empty.jsonl")
    assert "empty.jsonl" in message or data_key(kind) in message
    assert "no rows" in message or "empty" in message


@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_that_leaves_nothing(refused: Callable[..., str], kind: str) -> None:
    part = "eval.parts.sums" if kind == "eval" else "data.parts.train"
    message = refused(kind, f"{part}.where=answer == 'never'")
    assert f"{kind}.yaml: {part}.where" in message


@pytest.mark.parametrize("kind", KINDS)
def test_malformed_rows(refused: Callable[..., str], kind: str, work: Path) -> None:
    (work / "broken.jsonl").write_text('{"prompt": "1+1", "completion": "2"}\n{"prompt": \n')
    message = refused(kind, f"{data_key(kind)}.path=./broken.jsonl")
    assert "broken.jsonl" in message
    assert "2" in message  # the line


def test_a_prompt_over_the_limit(refused: Callable[..., str]) -> None:
    message = refused("grpo", "grpo.max_prompt_tokens=5")
    assert "grpo.yaml: grpo.max_prompt_tokens: row train/0: the prompt has" in message
    assert "overlong_prompts=drop" in message


def test_an_evaluation_longer_than_the_model_reads(refused: Callable[..., str]) -> None:
    message = refused("eval", "eval.max_new_tokens=512")
    assert "eval.yaml: eval.max_new_tokens: " in message
    assert "the model reads at most 512" in message


@pytest.mark.parametrize("extra", [[], ["sft.packing=true"], ["sft.overlong=truncate"]])
def test_conversations_longer_than_the_model_reads(
    refused: Callable[..., str], work: Path, extra: list[str]
) -> None:
    long = {"prompt": "What is 1 + 1?", "completion": "Answer: " + "2 " * 600}
    (work / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, long]))
    message = refused("sft", "data.path=./long.jsonl", "sft.max_length=4096", *extra)
    assert "sft.yaml: sft.max_length: row train/8 has " in message
    assert "the model reads at most 512" in message
    assert "remedy: set sft.max_length to at most 512" in message


# Models


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_directory_without_tokenizer(refused: Callable[..., str], kind: str, work: Path) -> None:
    model = work / "bare"
    model.mkdir()
    shutil.copy(POLICY / "config.json", model)
    message = refused(kind, "policy.path=./bare")
    assert f"{model}: policy.path: this model directory has no tokenizer" in message
    assert "policy.tokenizer" in message


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_model(refused: Callable[..., str], kind: str) -> None:
    message = refused(kind, "policy.path=./absent-model")
    assert "absent-model" in message
    assert "policy.path" in message


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_without_generation_prompt(refused: Callable[..., str], kind: str, work: Path) -> None:
    (work / "flat.jinja").write_text("{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}")
    message = refused(kind, "policy.chat_template=./flat.jinja")
    assert "policy.chat_template" in message
    assert "no generation prompt" in message


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_with_a_fault_of_its_own(refused: Callable[..., str], kind: str, work: Path) -> None:
    (work / "open.jinja").write_text("{{ bos_token }}\n{% for m in messages %}\n{{ m['content'] ")
    message = refused(kind, "policy.chat_template=./open.jinja")
    assert f"{work}/open.jinja: policy.chat_template: the chat template is not Jinja: line 3: " in message


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_template(refused: Callable[..., str], kind: str) -> None:
    message = refused(kind, "policy.chat_template=deepseek_v9")
    assert "policy.chat_template: no such chat template: 'deepseek_v9'" in message


# Rewards

MARKED = "from align.reward import reward\n@reward\n"
BAD_REWARDS = {
    "syntax": ("def broken(:\n", "cannot be imported: SyntaxError"),
    "package": ("import a_package_that_is_not_there\n", "cannot be imported: ModuleNotFoundError"),
    "nothing": ("x = 1\n", "no reward function found"),
    "parameters": (MARKED + "def f():\n    return 1.0\n", "is not a reward function"),
    "text": ("def f(sample):\n    return 'good'\n", "returned str where a number"),
    "list": ("def f(prompts, completions, **kwargs):\n    return [1.0]\n", "returned 1 scores for 2 samples"),
    "raises": ("def f(sample):\n    return 1 / 0\n", "ZeroDivisionError"),
    "column": ("def f(sample):\n    return float(sample['solution'] == 1)\n", "no column 'solution'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_REWARDS)
def test_a_reward_that_cannot_be_used(refused: Callable[..., str], fault: str, work: Path) -> None:
    code, reason = BAD_REWARDS[fault]
    (work / "bad.py").write_text(code)
    message = refused("grpo", "rewards.terms.right.function=./bad.py")
    assert "bad.py" in message
    assert reason in message


@pytest.mark.parametrize("fault", ["syntax", "text", "raises"])
def test_a_metric_that_cannot_be_used(refused: Callable[..., str], fault: str, work: Path) -> None:
    code, reason = BAD_REWARDS[fault]
    (work / "bad.py").write_text(code)
    message = refused("eval", "eval.parts.sums.metric=./bad.py")
    assert "bad.py" in message
    assert reason in message


def test_an_unknown_reward(refused: Callable[..., str]) -> None:
    message = refused("grpo", "rewards.terms.right.function=exact_anser")
    assert "grpo.yaml: rewards.terms.right.function: no reward function named 'exact_anser'" in message
    assert "did you mean 'exact_answer'?" in message


def test_a_reward_argument_that_it_does_not_take(refused: Callable[..., str]) -> None:
    message = refused("grpo", "rewards.terms.right.args={extrakt: auto}")
    assert "did you mean 'extract'?" in message


# Places


@pytest.mark.parametrize("kind", ["grpo", "eval"])
def test_a_run_directory_that_is_taken(align: Callable[..., Any], kind: str, work: Path) -> None:
    (work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (work / f"{kind}.yaml").write_text(yaml.safe_dump(recipe(kind)))
    taken = work / "runs" / "bad"
    taken.mkdir(parents=True)
    (taken / "resolved.yaml").write_text("kind: eval\n")
    done = align(kind, f"{kind}.yaml")
    assert done.exit_code == 2
    assert "runs/bad: name: this run directory exists already" in done.stderr
    assert [file.name for file in taken.iterdir()] == ["resolved.yaml"]
