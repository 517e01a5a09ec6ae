"""Running `align`: in this process, or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "recipes" / "quickstart" / "policy"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and a setting without --debug."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGN_DEBUG", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def align(work: Path) -> Callable[..., Any]:
    """``align("sft", "recipe.yaml")`` in this process; has exit_code, stdout and stderr."""
    from align.cli.main import app

    def run(*arguments: str, input: str | None = None) -> Any:
        return CliRunner().invoke(app, list(arguments), input=input, prog_name="align")

    return run


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
    from align.model.load import load_model, load_tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny"
    policy = PolicyConfig(path=str(POLICY), init="random", dtype="float32")
    load_model(policy, seed=0).save_pretrained(folder)
    load_tokenizer(policy).save_pretrained(folder)
    return folder
