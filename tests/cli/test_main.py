"""The frame of the command line: help, version, and how errors look."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

import align.cli.describe
from align.cli.main import app
from align.errors import EngineError

COMMANDS = (
    "run",
    "sft",
    "rm",
    "grpo",
    "eval",
    "chat",
    "describe",
    "export",
    "inspect-data",
    "plan",
    "report",
    "rewards",
)


def test_help_names_every_command_and_takes_less_than_a_second(align_process: Callable[..., Any]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = align_process("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    for command in COMMANDS:
        assert f" {command} " in done.stdout, command
    # Processor time: wall time would measure the rest of the machine.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_the_command_line_imports_nothing_heavy(repo_root: Path) -> None:
    """What makes that possible, and fails on fast machines too."""
    heavy = {"torch", "transformers", "datasets", "ray", "vllm", "trl", "peft", "pandas", "numpy", "pyarrow"}
    code = f"import sys, align.cli.main; print(sorted(set(sys.modules) & {heavy!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(align: Callable[..., Any], command: str) -> None:
    done = align(command, "--help")
    assert done.exit_code == 0
    assert f"align {command}" in done.stdout


def test_no_arguments_show_help(align: Callable[..., Any]) -> None:
    assert "Usage: align" in align().output


def test_version(align: Callable[..., Any]) -> None:
    done = align("--version")
    assert done.exit_code == 0
    assert done.stdout.startswith("align ")


@pytest.mark.parametrize("arguments", [["nonsense"], ["describe", "--nonsense"], ["eval"], ["chat"]])
def test_wrong_usage_exits_with_2(align: Callable[..., Any], arguments: list[str]) -> None:
    assert align(*arguments).exit_code == 2


def test_an_error_is_two_lines_without_traceback_or_colour(align_process: Callable[..., Any]) -> None:
    done = align_process("describe", "grpo", "grpo.step")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: grpo.step: a grpo recipe has no such key",
        "  remedy: did you mean 'grpo.steps'?",
    ]


@pytest.mark.parametrize(
    "arguments",
    [["--debug", "describe", "sfd"], ["describe", "--debug", "sfd"], ["describe", "sfd", "--debug"]],
)
def test_debug_stands_anywhere_and_shows_the_traceback(
    align: Callable[..., Any], arguments: list[str]
) -> None:
    done = align(*arguments)
    assert done.exit_code == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert "error: there is no kind of recipe 'sfd'" in done.stderr


def test_debug_by_environment(align: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Traceback" not in align("describe", "sfd").stderr
    monkeypatch.setenv("ALIGN_DEBUG", "1")
    assert "Traceback" in align("describe", "sfd").stderr


class Raise:
    """Makes `align describe` raise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def __call__(self, error: BaseException) -> None:
        def fail(_: Any) -> Any:
            raise error

        self.monkeypatch.setattr(align.cli.describe, "knobs", fail)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Raise:
    return Raise(monkeypatch)


def test_the_exit_code_is_the_errors_own(align: Callable[..., Any], failing: Raise) -> None:
    failing(EngineError("it died", file="runs/x", remedy="start it again"))
    done = align("describe", "sft")
    assert done.exit_code == 1
    assert done.stderr == "error: runs/x: it died\n  remedy: start it again\n"


def test_markup_in_messages_is_shown_as_it_is(align: Callable[..., Any], failing: Raise) -> None:
    failing(EngineError("got [red]x[/red] and [0.9, 'x']"))
    assert "got [red]x[/red] and [0.9, 'x']" in align("describe", "sft").stderr


def test_ctrl_c_exits_with_130(align: Callable[..., Any], failing: Raise) -> None:
    failing(KeyboardInterrupt())
    done = align("describe", "sft")
    assert done.exit_code == 130
    assert done.stderr == "interrupted\n"


def test_a_bug_is_one_line_and_says_how_to_see_more(align: Callable[..., Any], failing: Raise) -> None:
    failing(ZeroDivisionError("division by zero\nsecond line"))
    done = align("describe", "sft")
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "error: ZeroDivisionError: division by zero",
        "  this is a bug; run with --debug for the traceback",
    ]


def test_the_traceback_of_a_bug_goes_to_the_runs_log(
    align: Callable[..., Any], failing: Raise, work: Path
) -> None:
    handler = logging.FileHandler(work / "run.log")
    logging.getLogger().addHandler(handler)
    try:
        failing(ZeroDivisionError("division by zero"))
        done = align("describe", "sft")
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    assert "the traceback is in run.log" in done.stderr
    assert "Traceback (most recent call last)" in (work / "run.log").read_text()


def test_a_closed_pipe_is_no_error(repo_root: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m align.cli.main describe grpo | head -1",
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
        check=True,
    )
    assert done.stdout.startswith("name  str")
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr


def test_the_commands_are_the_promised_ones() -> None:
    assert sorted(typer.main.get_command(app).commands) == sorted(COMMANDS)  # type: ignore[attr-defined]
