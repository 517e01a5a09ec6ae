"""docs/rules.md: its terms load, and its table lists what rewards/ holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from align.config.rewards import RewardsConfig
from align.reward.functions.registry import SHIPPED, RewardFunction, resolve


@pytest.fixture(scope="session")
def page(repo_root: Path) -> str:
    return (repo_root / "docs" / "rules.md").read_text(encoding="utf-8")


def test_terms_load(page: str) -> None:
    blocks = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    terms = {}
    for block in blocks:
        if "rewards" in block:
            terms |= RewardsConfig.model_validate(block["rewards"]).terms
    assert set(terms) == {
        "answer", "choice", "follows", "mine", "same_language", "refusal", "form", "overlong", "loops",
    }  # fmt: skip
    for term in terms.values():
        assert isinstance(resolve(str(term.function), term.args), RewardFunction)


def test_table_names_functions_and_their_arguments(page: str) -> None:
    rows = re.findall(r"^\| `([\w:]+)` \|[^|]+\|([^|]*)\|([^|]*)\|$", page, re.MULTILINE)
    listed = {name for name, _, _ in rows}
    assert {"refusal:refused", "instructions", "language", "multiple_choice"} < listed
    assert {name for name in listed if ":" not in name} <= {path.stem for path in SHIPPED.glob("[!_]*.py")}
    for name, _, arguments in rows:
        function = resolve(name, {"pattern": "boxed"} if name == "format" else {}).function
        known = function.__code__.co_varnames[1 : function.__code__.co_argcount]
        assert re.findall(r"`(\w+)`", arguments) == list(known)
