"""What the commands share: their arguments, the consoles, and how an error is shown."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from align.errors import AlignError

RecipeFile = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="Recipe file (.yaml).", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Overrides of the recipe, for example grpo.steps=20; `align describe` lists the keys.",
        show_default=False,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run that is in the run directory.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Resolve and check everything, show it, start nothing.")
]
RayAddress = Annotated[str | None, typer.Option(help="Join a Ray cluster: auto, or ray://host:port.")]


def on_cluster(overrides: list[str] | None, address: str | None) -> list[str]:
    """The overrides of a recipe, with the cluster that the command line names."""
    return [*(overrides or []), *([f"cluster.ray_address={address}"] if address else [])]


DEBUG = "ALIGN_DEBUG"
"""Environment variable behind ``--debug``; processes started by a command inherit it."""


def _console(*, stderr: bool) -> Console:
    """Colours and the terminal's width on a terminal; no colours and no narrow columns elsewhere."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else 160)


console = _console(stderr=False)
"""Standard output."""
errors = _console(stderr=True)
"""Standard error."""


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get(DEBUG, "") not in {"", "0"}


def show_error(error: AlignError) -> None:
    """One error as ``error: file: key: message`` with its remedy below."""
    if debugging():
        errors.print(Text(_traceback(error)), soft_wrap=True)
    where = "".join(f"{part}: " for part in (error.file, error.key) if part)
    errors.print(Text("error: ", "bold red") + Text(f"{where}{_brief(error.message)}"), soft_wrap=True)
    if error.remedy:
        errors.print(Text("  remedy: ", "green") + Text(error.remedy), soft_wrap=True)


def too_long(error: OSError) -> AlignError:
    """The error of a path that the file system does not take."""
    path = str(error.filename or "")
    return AlignError(
        f"a path of {len(os.fsencode(path))} bytes, or a name in it, is longer than file systems take: "
        f"{path[:60]}…",
        remedy="shorten it",
    )


def _brief(message: str) -> str:
    """Without the traceback of a reward function that a message may quote; its last line stays."""
    head, found, trace = message.partition("Traceback (most recent call last):\n")
    return head + trace.strip().splitlines()[-1] if found and not debugging() else message


def show_bug(error: Exception) -> None:
    """One line for an exception that nobody foresaw; its traceback goes to the run's log."""
    if debugging():
        errors.print(Text(_traceback(error)), soft_wrap=True)
    reason = str(error).strip().partition("\n")[0]
    summary = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    log = next(
        (
            handler.baseFilename
            for handler in logging.getLogger().handlers
            if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).name == "run.log"
        ),
        None,
    )
    hint = "run with --debug for the traceback"
    if log:
        logging.getLogger("align").error("%s", summary, exc_info=error)
        hint = f"the traceback is in {os.path.relpath(log)}"
    errors.print(Text("error: ", "bold red") + Text(summary), soft_wrap=True)
    errors.print(Text(f"  this is a bug; {hint}"), soft_wrap=True)


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()
