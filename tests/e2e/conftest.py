"""A place like a fresh checkout, and one small pipeline run in it that several tests look at."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess]

VOWELS = """
from align.reward import Sample, reward

@reward
def vowels(sample: Sample) -> float:
    return sum(letter in "aeiou" for letter in sample.completion) / 24
"""
PIPELINE_COMMAND = "run recipes/quickstart/pipeline.yaml name=short grpo.grpo.steps=20"
SFT = ["sft.max_steps=4", "checkpoint.every=2"]
GRPO = [
    "grpo.steps=2",
    "grpo.prompts_per_step=4",
    "grpo.group_size=4",
    "rollout.max_new_tokens=24",
    "rollout.compile=false",  # would take longer than all the rest
    # After four steps of SFT nothing is ever right; this reward tells even such answers apart.
    "rewards.terms.vowels.function=vowels.py",
]
EVAL = ["eval.max_new_tokens=24"] + [
    f"eval.parts.{name}.limit=4" for name in ("maths", "code", "refusal", "over_refusal")
]
RM = ["rm.max_steps=2"]


def stages(**overrides: list[str]) -> list[str]:
    """Overrides of a pipeline: ``stage.key=value``."""
    return [f"{stage}.{each}" for stage, own in overrides.items() for each in own]


PIPELINE = stages(sft=SFT, before=EVAL, grpo=[*GRPO, "grpo.steps=4"], after=EVAL)
TWO_STAGE = stages(
    sft=SFT,
    rm_helpful=RM,
    rm_safety=RM,
    before=EVAL,
    reasoning=GRPO,
    between=EVAL,
    preference=GRPO,
    after=EVAL,
)


@pytest.fixture(scope="session")
def work(tmp_path_factory) -> Path:
    """Recipes, data and rewards of the checkout, and room for runs."""
    folder = tmp_path_factory.mktemp("work")
    for name in ("recipes", "data", "rewards"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "models").mkdir()
    for model in (ROOT / "models").glob("smollm2*"):  # what a user exported there stays out of the way
        (folder / "models" / model.name).symlink_to(model)
    (folder / "vowels.py").write_text(VOWELS)
    return folder


@pytest.fixture(scope="session")
def run(work: Path) -> Run:
    """``run("sft", "recipe.yaml", stdin="")``: ``align`` in a process of its own, in ``work``."""

    def align(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "align.cli.main", *arguments],
            cwd=work,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=540,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )

    return align


@pytest.fixture
def here(work: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The same in this process; has exit_code, stdout and output."""
    from typer.testing import CliRunner

    from align.cli.main import app

    monkeypatch.chdir(work)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return lambda *arguments: CliRunner().invoke(app, list(arguments), prog_name="align")


@pytest.fixture(scope="session")
def pipeline_command() -> str:
    """What ``quickstart`` runs, as the README has it."""
    return PIPELINE_COMMAND


@pytest.fixture(scope="session")
def small() -> dict[str, list[str]]:
    """Overrides that shrink a command on the quickstart's recipes to seconds of computing."""
    return {"sft": SFT, "rm": RM, "grpo": GRPO, "eval": EVAL, "run": PIPELINE, "two_stage": TWO_STAGE}


@pytest.fixture(scope="session")
def quickstart(work: Path, run: Run) -> Path:
    """The quickstart's pipeline by the README's command, shrunk to seconds of training."""
    done = run(*PIPELINE_COMMAND.split(), "run_dir=runs/quickstart", *PIPELINE)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "stage 4/4 after (eval): finished" in done.stdout
    return work / "runs" / "quickstart"
