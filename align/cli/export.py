"""``align export``: a model directory for transformers and vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from align.config.policy import Dtype


def export(
    source: Annotated[
        Path, typer.Argument(help="Run, checkpoint, model directory or .gguf file.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.", show_default=False)],
    dtype: Annotated[Dtype, typer.Option(help="Type of the written weights.")] = "bfloat16",
) -> None:
    """Write a directory that transformers and vLLM load unchanged."""
    from align.checkpoint.export import export as write

    typer.echo(f"exported to {write(source, out, dtype=dtype)}")
