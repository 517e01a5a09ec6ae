from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from align.cli.inspect_data import quantiles
from align.cli.main import app

POLICY = Path(__file__).parents[2] / "recipes" / "quickstart" / "policy"


@pytest.fixture
def recipe(tmp_path, write):
    def to(kind, **sections):
        tree = {"kind": kind, "name": "look", "policy": {"path": str(POLICY)}, **sections}
        path = tmp_path / f"{kind}.yaml"
        path.write_text(yaml.safe_dump(tree))
        return str(path)

    return to


def show(*args):
    result = CliRunner().invoke(app, ["inspect-data", *args])
    return result.exit_code, result.output + (result.stderr if result.exit_code else "")


def test_conversations(recipe, write):
    rows = [{"prompt": f"{n} + 1?", "completion": f"Answer: {n + 1}"} for n in range(9)]
    parts = {
        "sums": {"path": write("a.jsonl", rows), "weight": 3, "limit": 3},
        "all": {"path": write("b.jsonl", rows), "weight": 1},
    }
    code, out = show(recipe("sft", data={"parts": parts}), "-n", "1")
    assert code == 0, out
    assert "Mixture: 12 rows an epoch" in out
    sums = next(line for line in out.splitlines() if "sums" in line)
    assert [cell.strip() for cell in sums.split("│")[1:-1]] == [
        "sums", "9", "0", "0", "0", "3", "9", "6", "75.0%", "75.0%"
    ]  # fmt: skip
    assert "User: 0 + 1?\n\nAssistant: Answer: 1" in out
    assert "tokens are trained" in out
    assert "sums/0" in out
    assert "sums/1" not in out


def test_prompts_and_overrides(recipe, write):
    rows = [{"question": f"{n} + 1?", "answer": n + 1} for n in range(10)]
    file = recipe(
        "grpo",
        data={"path": write("a.jsonl", rows), "parts": {"sums": {"columns": {"prompt": "question"}}}},
        rewards={"terms": {"right": {"function": "exact_answer"}}},
        grpo={"prompts_per_step": 4},
    )
    code, out = show(file, "data.parts.sums.limit=6", "--rows", "1")
    assert code == 0, out
    assert "100.0%" in out
    assert "question, answer" in out
    assert "answer: 1" in out
    code, out = show(file, "data.parts.sums.limit=3")
    assert code == 2
    assert "a step takes 4 different prompts" in out


def test_a_pipeline_has_no_data_of_its_own(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("kind: pipeline\nname: p\nstages: {a: {recipe: a.yaml}}\n")
    code, out = show(str(file))
    assert code == 2
    assert "no data of its own" in out


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("stf", "set kind to one of sft, rm, grpo, eval, pipeline; did you mean 'sft'?"),
        ("GRPO", "did you mean 'grpo'?"),
        ("[sft]", "there is no kind of recipe ['sft']"),
        ("xyz", "there is no kind of recipe 'xyz'"),
        ("", "the recipe does not say its kind"),
    ],
)
@pytest.mark.parametrize("command", ["inspect-data", "plan", "sft"])
def test_a_kind_that_there_is_not(tmp_path, command, kind, told):
    file = tmp_path / "p.yaml"
    file.write_text(f"kind: {kind}\nname: p\n")
    result = CliRunner().invoke(app, [command, str(file)])
    assert result.exit_code == 2
    assert told in result.output


def test_quantiles():
    values = [5, 1, 4, 2, 3]
    assert quantiles(values, [0, 0.2, 0.5, 0.9, 1]) == [1, 1, 3, 5, 5]
    assert quantiles([7], [0, 0.5, 1]) == [7, 7, 7]
