"""Running `align`: in this process, or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "recipes" / "quickstart" / "policy"


@pytest.fixture
def align_process(work: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same in a process of its own."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "align.cli.main", *arguments],
            capture_output=True,
            text=True,
            cwd=work,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory: the quickstart's policy with fresh weights and its tokenizer."""
    from align.config.policy import PolicyConfig
    from align.model.files.load import load_model, load_tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny"
    policy = PolicyConfig(path=str(POLICY), init="random", dtype="float32")
    load_model(policy, seed=0).save_pretrained(folder)
    load_tokenizer(policy).save_pretrained(folder)
    return folder
