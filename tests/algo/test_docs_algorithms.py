"""docs/algorithms.md: its recipe lines load and say what the page says, its sums are right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from align.algo.dynamic import refill
from align.algo.objective import MicroBatch, grpo_objective, mean_metrics
from align.config.grpo import DynamicSamplingConfig, GrpoConfig
from align.config.knobs import knobs
from align.config.load import read_tree
from align.config.rewards import RewardsConfig


@pytest.fixture
def page(repo_root: Path) -> str:
    return (repo_root / "docs" / "algorithms.md").read_text(encoding="utf-8")


@pytest.fixture
def blocks(page: str, tmp_path: Path) -> dict[str, Any]:
    """Section title → its recipe lines, read as a recipe is read."""
    found = {}
    for section in page.split("\n## ")[1:]:
        for text in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL):
            file = tmp_path / "recipe.yaml"
            file.write_text(text, encoding="utf-8")
            found[section.splitlines()[0]] = read_tree(file)
    return found


def test_every_block_loads(blocks: dict[str, Any]) -> None:
    assert len(blocks) == 11
    for title, tree in blocks.items():
        config = GrpoConfig.model_validate(tree["grpo"])
        assert (config == GrpoConfig()) is title.startswith("GRPO, token level")
        if "rewards" in tree:
            RewardsConfig.model_validate(tree["rewards"])


def test_the_table_names_every_choice(page: str) -> None:
    table = page.split("| Field | Options | File |")[1].split("\n\n")[0]
    choices = {knob.key: knob.type.split(" | ") for knob in knobs(GrpoConfig) if " | " in knob.type}
    for field in ("policy_loss", "level", "reduction", "kl", "advantage.baseline", "advantage.scale"):
        for choice in choices[field]:
            assert f"`{choice}`" in table, (field, choice)
    for file in re.findall(r"`(\w+\.py)`", table):
        assert (Path(__file__).parents[2] / "align" / "algo" / file).is_file()


def test_the_refill_example() -> None:
    assert refill(8, 6, 8, 1, DynamicSamplingConfig()) == 3


def test_metrics_are_those_of_the_page(repo_root: Path) -> None:
    page = (repo_root / "docs" / "runs.md").read_text(encoding="utf-8")
    one, mask = torch.full((1, 1), -1.0), torch.ones(1, 1, dtype=torch.bool)
    batch = MicroBatch(one, one, mask, one, None, None, torch.ones(1), torch.ones(1))
    found = mean_metrics([grpo_objective(batch, GrpoConfig())[1]])
    named = set()
    for cell in re.findall(r"^\| (`mismatch/.*?) \|", page, re.MULTILINE):
        first, *rest = re.findall(r"`(.*?)`", cell)
        stem = first.rpartition("_")[0]
        named |= {first, *(stem + each.removeprefix("…") if each.startswith("…") else each for each in rest)}
    assert named == {name for name in found if name.startswith("mismatch/")}
