"""Every `align` command in the README runs. Those that train are shrunk; nothing else is changed.

What starts neither a trainer nor an engine runs in this process, as each of its own would import the same for
seconds. The pipeline's command makes the run that the others look at; the two-stage pipeline, eight stages
long, runs in the slow suite.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PREFIX = ".venv/bin/align "
LIGHT = ("plan", "describe", "inspect-data", "rewards", "report", "export")


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    return [line.removeprefix(PREFIX) for line in lines if line.startswith(PREFIX)]


def marked() -> list[Any]:
    slow = pytest.mark.slow
    return [
        pytest.param(each, marks=slow if "two_stage" in each and "--dry-run" not in each else ())
        for each in commands()
    ]


def test_the_pipeline_that_the_others_look_at_is_a_command_of_the_readme(pipeline_command: str) -> None:
    assert pipeline_command in commands()


@pytest.mark.parametrize("command", marked())
def test_readme_command(
    command: str, run, here, quickstart: Path, pipeline_command: str, small, request
) -> None:
    if command == pipeline_command:
        return  # `quickstart` ran it and asserted its end
    arguments = shlex.split(command)
    if "smollm2" in command:  # an hour of training: checked to the last step before an engine starts
        request.getfixturevalue("smollm2")
        data = request.getfixturevalue("shared_data") / "gsm8k"
        arguments = [re.sub(r"\.\./shared/data/gsm8k", str(data), each) for each in arguments] + ["--dry-run"]
    elif "--dry-run" not in arguments:
        arguments += small.get("two_stage" if "two_stage" in command else arguments[0], [])
    if "--dry-run" in arguments or arguments[0] in LIGHT:
        done = here(*arguments)
        assert done.exit_code == 0, done.output[-3000:]
    else:
        done = run(*arguments, stdin="What is 7 + 5 - 4?\n")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.strip()
