"""What a run directory says about its run, read back. Whatever is missing is simply absent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from align.errors import RecipeError
from align.report.rollouts import rollout_files

Series = list[tuple[int, float]]
"""(step, value) by ascending step."""


@dataclass(frozen=True, slots=True)
class History:
    """One run as its files tell it."""

    path: Path
    series: dict[str, Series]
    """Metric name → its values; of two values for one step the later counts."""
    recipe: str
    """``resolved.yaml`` as it stands."""
    environment: dict[str, Any]
    samples: list[tuple[int, list[dict[str, Any]]]]
    """(step, rows) of the first, middle and last rollout file."""

    @property
    def last_step(self) -> int:
        """The last step with a metric; 0 for a run that has none."""
        return max((points[-1][0] for points in self.series.values()), default=0)


def read_run(path: Path, *, rows: int = 4) -> History:
    """Read one run directory.

    Args:
        path: the run directory.
        rows: how many completions to take from each rollout file, one per prompt.

    Raises:
        RecipeError: ``path`` is no run directory.
    """
    recipe, metrics = path / "resolved.yaml", path / "metrics.jsonl"
    if not (recipe.is_file() or metrics.is_file()):
        inner = sorted(found.parent.name for found in path.glob("*/resolved.yaml"))
        raise RecipeError(
            "not a run directory: neither resolved.yaml nor metrics.jsonl in it",
            file=path,
            remedy=f"name one of its runs: {', '.join(inner)}" if inner else "name a directory under runs/",
        )
    facts = path / "environment.json"
    return History(
        path=path,
        series=_series(metrics),
        recipe=recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        environment=json.loads(facts.read_text(encoding="utf-8")) if facts.is_file() else {},
        samples=_samples(path / "rollouts", rows),
    )


def _series(file: Path) -> dict[str, Series]:
    points: dict[str, dict[int, float]] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a run that was killed or is being written
        step = entry.pop("step")
        for name, value in entry.items():
            if value is not None:
                points.setdefault(name, {})[step] = value
    return {name: sorted(values.items()) for name, values in points.items()}


def _samples(folder: Path, rows: int) -> list[tuple[int, list[dict[str, Any]]]]:
    files = rollout_files(folder)
    chosen = sorted({0, (len(files) - 1) // 2, len(files) - 1}) if files else []
    return [(files[index][0], _first_of_each_prompt(files[index][1], rows)) for index in chosen]


def _first_of_each_prompt(file: Path, rows: int) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    first: dict[str, dict[str, Any]] = {}
    for row in table:
        first.setdefault(row["prompt_id"], row)
    return list(first.values())[:rows]
