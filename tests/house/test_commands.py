"""What the documents tell people to type exists, and .ci/run cannot pass without tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def fenced(document: str) -> list[str]:
    """The commands in a document's bash fences, one a line."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_the_first_two_commands_of_the_readme() -> None:
    assert fenced("README.md")[:2] == ["make quickstart", "make test"]


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_make_target_in_the_documents_exists(document: str) -> None:
    used = [word for line in fenced(document) if line.startswith("make ") for word in line.split()[1:]]
    assert {word for word in used if "=" not in word} <= targets()
    assert used


def test_help_lists_every_target() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    listed = set(re.findall(r"^  make ([a-z0-9]+) ", done.stdout, flags=re.MULTILINE))
    assert listed == targets()


SUITE = '<testsuites><testsuite tests="{tests}" skipped="{skipped}" failures="0" errors="0"/></testsuites>'


@pytest.mark.parametrize(
    ("report", "status", "passes"),
    [
        (SUITE.format(tests=3, skipped=1), 0, True),
        (SUITE.format(tests=3, skipped=3), 0, False),
        (SUITE.format(tests=0, skipped=0), 5, False),
        (SUITE.format(tests=3, skipped=0), 1, False),
        ("", 0, False),
    ],
    ids=["passed", "all skipped", "none collected", "failed", "no report"],
)
def test_ci_passes_only_when_tests_passed(report: str, status: int, passes: bool, tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "report.xml").write_text(report)
    recipe = f"cp report.xml $(subst --junitxml=,,$(ARGS))\n\t@echo SUMMARY; exit {status}"
    (tmp_path / "Makefile").write_text(f"check:\n\t@echo CHECKED\ntest:\n\t@{recipe}\n")
    command = ["bash", str(tmp_path / ".ci" / "run")]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, cwd="/"
    )
    assert (done.returncode == 0) is passes, done.stdout + done.stderr
    assert done.stdout.splitlines()[0] == "CHECKED"
    if passes:
        assert done.stdout.splitlines()[-1] == "SUMMARY"


def test_ci_stops_when_the_check_fails(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "Makefile").write_text("check:\n\t@exit 1\ntest:\n\t@echo TESTED\n")
    done = subprocess.run(["bash", str(tmp_path / ".ci" / "run")], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "TESTED" not in done.stdout
