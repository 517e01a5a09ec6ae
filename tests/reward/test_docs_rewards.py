"""docs/rewards.md: its recipe loads, its functions run, its commands exist, its sum is right."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from align.cli.main import app
from align.config.rewards import RewardsConfig
from align.reward.combine import combine
from align.reward.contract import Sample
from align.reward.registry import resolve
from align.reward.score import call
from align.reward.terms import load_terms
from align.types import Outcome


@pytest.fixture
def blocks(repo_root: Path) -> dict[str, list[str]]:
    text = (repo_root / "docs" / "rewards.md").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for kind, body in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL):
        found.setdefault(kind, []).append(body)
    return found


@pytest.fixture
def folder(blocks: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the page's files in it."""
    for body in blocks["python"]:
        name = re.match(r"# (rewards/\w+\.py)", body)
        assert name, body
        (tmp_path / "rewards").mkdir(exist_ok=True)
        (tmp_path / name[1]).write_text(body, encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"model": {"text": "It is 4."}, "target": 4}\n')
    (tmp_path / "runs" / "NAME").mkdir(parents=True)
    (tmp_path / "runs" / "NAME" / "reward_errors.jsonl").write_text('{"completion": "one two"}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_recipe_loads(blocks: dict[str, list[str]]) -> None:
    [text] = blocks["yaml"]
    config = RewardsConfig.model_validate(yaml.safe_load(text)["rewards"])
    terms = load_terms(config, lambda where: lambda columns: "answer" in columns)
    assert [(term.name, term.weight) for term in terms] == [("answer", 1.0), ("form", 0.2), ("loops", 0.1)]


@pytest.mark.parametrize(
    ("spec", "style", "scores"),
    [
        ("brief", "native", [1, 1, 1]),
        ("distinct", "native", [0, 0, 1]),
        ("trl_style", "trl", [0, 0, 1]),
        ("verl_style", "verl", [1, 1, 0]),
    ],
)
def test_functions_run(folder: Path, spec: str, style: str, scores: list[float]) -> None:
    function = resolve(spec)
    samples = [Sample((), text, columns={"answer": 4}) for text in ("It is 4", "It is 4", "Please wait")]
    assert function.style.name == style
    assert [outcome.value for outcome in call(function, samples)] == scores


def test_commands_run(folder: Path, blocks: dict[str, list[str]]) -> None:
    [text] = blocks["sh"]
    for line in text.strip().splitlines():
        program, *args = shlex.split(line)
        assert program == "align"
        result = CliRunner().invoke(app, args)
        assert result.exit_code == 0, f"{line}\n{result.output}"


def test_worked_sum() -> None:
    config = {
        "terms": {"answer": {"function": "exact_answer"}, "form": {"function": "repetition", "weight": 0.2}}
    }
    terms = load_terms(RewardsConfig.model_validate(config), lambda where: lambda columns: True)

    def reward(answer: Outcome, form: Outcome) -> float | None:
        return combine(terms, {"answer": answer, "form": form}, prompt_id="p", sample_index=0).reward

    half = Outcome("ok", 0.5)
    assert reward(Outcome("ok", 1.0), half) == pytest.approx(1.1, abs=1e-6)
    assert reward(Outcome("abstain"), half) == pytest.approx(0.1, abs=1e-6)
    assert reward(Outcome("ok", 1.0), Outcome("error")) is None
