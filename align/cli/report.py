"""``align report``: the HTML report of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(help="Run directory.", show_default=False)]) -> None:
    """Write report.html again from what the run directory holds."""
    from align.report.html import write_report

    typer.echo(f"wrote {write_report(run)}")
