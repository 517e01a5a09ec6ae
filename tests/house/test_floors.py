"""The floors hold, and the contracts that guard them can fail."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(LINT), "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_floors_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("align/reward/extra.py", "import align.cluster", "lower floors"),
        ("align/reward/extra.py", "import align.dataset", "lower floors"),
        ("align/novel/__init__.py", "", "novel"),
        ("align/train/extra.py", "import ray", "Only align.cluster imports ray"),
        ("align/model/extra.py", "def f():\n    from vllm import LLM", "Only align.rollout imports vllm"),
        ("align/plan/extra.py", "import torch.nn", "nothing heavy"),
        ("align/train/grpo/loop.py", "import align.rollout", "floors 0 and 1"),
    ],
)
def test_a_breach_is_found(file: str, line: str, contract: str, tmp_path: Path) -> None:
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "align", tmp_path / "align", ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    target = tmp_path / file
    target.parent.mkdir(exist_ok=True)
    before = target.read_text() if target.exists() else ""
    target.write_text(f"{before}\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout
    broken = [text for text in done.stdout.splitlines() if "BROKEN" in text or "novel" in text]
    assert any(contract in text for text in broken), done.stdout


def test_rewards_import_only_the_contract_and_third_parties() -> None:
    for file in (ROOT / "rewards").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                helper = (node.module or node.names[0].name).startswith("_")  # no reward of its own
                assert node.level == 0 or helper, f"{file.name} imports a neighbour"
                modules = [] if node.level else [node.module or ""]
            for module in modules:
                if module.partition(".")[0] in {"align", "rewards"}:
                    assert module in {"align.reward", "align.reward.sandbox"}, f"{file.name} imports {module}"
