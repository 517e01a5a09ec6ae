"""Where a user is told what guards the machine from a model's code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from align.reward.functions.registry import resolve
from align.reward.sandbox import protection
from align.train.grpo.sandbox_note import sandbox_note, uses_sandbox

POLICY = Path(__file__).resolve().parents[2] / "recipes" / "quickstart" / "policy"
ROW = {
    "prompt": "Write double(x).",
    "completion": "def double(x): return 2 * x",
    "tests": ["assert double(2) == 4"],
}
Align = Callable[..., Any]


@pytest.mark.parametrize(
    ("head", "uses"),
    [
        ("from align.reward.sandbox import run_tests", True),
        ("from align.reward.sandbox import Limits as Bounds", True),
        ("import align.reward.sandbox as box", True),
        ("from align.reward import sandbox", True),
        ("from align.reward import Sample, reward\nimport json", False),
        ("LIMIT = 'align.reward.sandbox'", False),
    ],
)
def test_a_file_that_imports_the_sandbox_uses_it(work: Path, head: str, uses: bool) -> None:
    (work / "mine.py").write_text(f"{head}\ndef mine(sample):\n    return 1.0\n")
    assert uses_sandbox(resolve("./mine.py").function) is uses


def test_the_shipped_rewards() -> None:
    names = ("unit_tests", "exact_answer", "refusal", "language", "repetition")
    assert [name for name in names if uses_sandbox(resolve(name).function)] == ["unit_tests"]


def test_the_note_names_users_and_guards() -> None:
    code, other = resolve("unit_tests"), resolve("refusal")
    assert sandbox_note([other, None]) is None
    note = sandbox_note([other, code, None, code])
    assert note is not None
    assert note.startswith("sandbox of unit_tests on this machine: files: ")
    assert "\n" not in note
    found = protection()
    for thing in ("files", "network", "processes", "signals", "limits"):
        assert f"{thing}: {' + '.join(getattr(found, thing)) or 'unprotected'}" in note


def test_trying_a_reward_says_it(align: Align, work: Path) -> None:
    (work / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    done = align("rewards", "test", "unit_tests", "--data", "rows.jsonl", "--arg", "isolation=best_effort")
    assert done.exit_code == 0, done.output
    shown = " ".join(done.stdout.split())
    assert shown.count(str(sandbox_note([resolve("unit_tests")]))) == 1
    assert "sandbox" not in align("rewards", "test", "exact_answer").stdout


@pytest.mark.parametrize(("function", "says"), [("unit_tests", 1), ("repetition", 0)])
def test_a_dry_run_says_it(align: Align, work: Path, function: str, says: int) -> None:
    (work / "rows.jsonl").write_text("".join(json.dumps(ROW) + "\n" for _ in range(8)))
    args = {"isolation": "best_effort", "timeout": 20} if function == "unit_tests" else {}
    recipe = {
        "kind": "grpo",
        "name": "dry",
        "policy": {"path": str(POLICY), "init": "random", "dtype": "float32"},
        "data": {"path": "rows.jsonl"},
        "rewards": {"terms": {"term": {"function": function, "args": args}}},
        "grpo": {"prompts_per_step": 2, "group_size": 2, "max_prompt_tokens": 64},
    }
    (work / "grpo.yaml").write_text(yaml.safe_dump(recipe))
    done = align("grpo", "grpo.yaml", "--dry-run")
    assert done.exit_code == 0, done.output
    assert done.stdout.count(f"sandbox of {function} on this machine") == says
