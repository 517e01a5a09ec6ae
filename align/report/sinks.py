"""Where metrics go: JSON lines and TensorBoard."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Takes the metrics of one step."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record them durably enough to survive a crash of this process."""
        ...

    def close(self) -> None:
        """Nothing is written after this."""
        ...


class JsonlSink:
    """``metrics.jsonl``: one object per line, ``step`` first; values that are not finite are null."""

    def __init__(self, file: Path, start_step: int) -> None:
        """
        Args:
            file: appended to.
            start_step: steps done before this start. Lines of later steps come from an attempt
                that was cut off after its last checkpoint; they are dropped, and so is a torn
                last line.
        """
        if file.exists():
            _drop_after(file, start_step)
        self._stream = file.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line and flush it."""
        values = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._stream.write(json.dumps({"step": step, **values}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class TensorBoardSink:
    """Event files for TensorBoard."""

    def __init__(self, folder: Path, start_step: int) -> None:
        """
        Args:
            folder: gets one event file per start.
            start_step: steps done before this start; later ones of earlier starts are hidden.
        """
        from torch.utils.tensorboard import SummaryWriter

        purge = start_step + 1 if start_step else None
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One scalar per metric."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


def tensorboard_sink(folder: Path, start_step: int) -> TensorBoardSink | None:
    """The sink, or None with a word in the log where TensorBoard is not installed."""
    try:
        return TensorBoardSink(folder, start_step)
    except ImportError as error:
        _log.warning("no TensorBoard files (%s): pip install tensorboard, or report.tensorboard=false", error)
        return None


def _drop_after(file: Path, step: int) -> None:
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            written = json.loads(line)["step"]
        except json.JSONDecodeError:
            continue  # torn by the crash that this start recovers from
        if written <= step and line.endswith("\n"):
            kept.append(line)
    aside = file.with_name(f".tmp-{file.name}")
    aside.write_text("".join(kept), encoding="utf-8")
    aside.replace(file)
