"""docs/rewards.md: its recipes load, its functions run, its commands exist, its examples come out."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from align.cli.main import app
from align.config.rewards import RewardsConfig
from align.reward.bank.combine import Combination
from align.reward.bank.ledger import Ledger
from align.reward.bank.terms import Term, load_terms
from align.reward.calls.score import call
from align.reward.contract import Sample
from align.reward.functions.registry import resolve
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
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"model": {"text": "It is 4."}, "target": 4}\n')
    (tmp_path / "runs" / "NAME").mkdir(parents=True)
    failing = resolve("brief", {"words": "three"})  # compares a number with a text
    book = Ledger(tmp_path / "runs" / "NAME" / "reward_errors.jsonl", budget=1, window=8, seed=1)
    sample = Sample((), "one two", prompt_id="p/0")
    [outcome] = call(failing, [sample])
    book.failure(Term("brief", failing), sample, outcome, weight_version=3)
    return tmp_path


def test_recipe_loads(blocks: dict[str, list[str]]) -> None:
    text = blocks["yaml"][0]
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
        ("openrlhf_style", "openrlhf", [1, 1, 0]),
        ("trlx_style", "trlx", [1, 1, 0]),
        ("verifiers_style", "verifiers", [1, 1, 0]),
    ],
)
def test_functions_run(folder: Path, spec: str, style: str, scores: list[float]) -> None:
    function = resolve(spec)
    samples = [Sample((), text, columns={"answer": 4}) for text in ("It is 4", "It is 4", "Please wait")]
    assert function.style.name == style
    assert [outcome.value for outcome in call(function, samples)] == scores


def test_commands_run(folder: Path, blocks: dict[str, list[str]]) -> None:
    for line in "".join(blocks["sh"]).strip().splitlines():
        program, *args = shlex.split(line)
        assert program == "align"
        result = CliRunner().invoke(app, args)
        assert result.exit_code == 0, f"{line}\n{result.output}"


def examples(page: str) -> Iterator[tuple[str, str]]:
    """(recipe, table) of every worked example, in order."""
    section = page[page.index("## How terms combine") : page.index("## Trying one")]
    yield from re.findall(r"```yaml\n(.*?)```.*?\n(\| step \|.*?)\n\n", section, re.DOTALL)


def outcome(text: str) -> Outcome | None:
    """What a cell of an example stands for; None for a row out of the term's scope."""
    if text == "–":
        return None
    return Outcome(text) if text in {"abstain", "error", "timeout"} else Outcome("ok", float(text))


def test_worked_examples(repo_root: Path, tmp_path: Path) -> None:
    page = (repo_root / "docs" / "rewards.md").read_text(encoding="utf-8")
    for path, body in re.findall(r"`(models/\w+/calibration.json)`:\n\n```json\n(.*?)```", page, re.DOTALL):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(body)
    rows = 0
    for recipe, table in examples(page):
        config = RewardsConfig.model_validate(yaml.safe_load(recipe)["rewards"])
        terms = load_terms(
            config, lambda where: lambda columns: True, find_model=lambda model: str(tmp_path / model)
        )
        bank = Combination(terms, config.combine)
        header, _, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
        cells = [dict(zip(header, line, strict=True)) for line in lines]
        for _, step in itertools.groupby(cells, key=lambda row: row["step"]):
            groups = [list(group) for _, group in itertools.groupby(step, key=lambda row: row["group"])]
            before = {f"λ {name}": each.value for name, each in bank.multipliers.items()}
            said = [
                [
                    {name: found for name in config.terms if (found := outcome(row[name])) is not None}
                    for row in group
                ]
                for group in groups
            ]
            for group, rewards in zip(groups, bank.rewards(said), strict=True):
                for row, reward in zip(group, rewards, strict=True):
                    rows += 1
                    if row["reward"] == "none":
                        assert reward is None, row
                    else:
                        assert reward == pytest.approx(float(row["reward"]), rel=0, abs=1e-6), row
                    shown = {name: float(text) for name, text in row.items() if name.startswith("λ ")}
                    assert shown == pytest.approx(before, rel=0, abs=1e-6)
            bank.end_step()
    assert rows == 27  # no table was overlooked


@pytest.mark.parametrize(("args", "expected"), [({}, [1.0, 0.0]), ({"count": 2}, [0.0, 1.0])])
def test_maker_gives_a_function(folder: Path, args: dict[str, int], expected: list[float]) -> None:
    samples = [Sample(({"role": "user", "content": "?"},), text) for text in ("one", "one\ntwo")]
    assert [each.value for each in call(resolve("lines:get_lines_reward", args), samples)] == expected
