"""``report.html``: one file that needs nothing else, made from a run directory alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from align.report.figures import figures
from align.report.history import History, read_run
from align.report.panel import clock_time
from align.report.reward_model import read_measured, reward_figures, summary_line


def write_report(run: Path) -> Path:
    """Write (again) the report of a run, finished or not.

    Args:
        run: the run directory.

    Returns:
        The HTML file in it.

    Raises:
        RecipeError: ``run`` is no run directory.
    """
    page = render_report(read_run(Path(run)))
    file = Path(run) / "report.html"
    aside = file.with_name(f".tmp-{file.name}")
    aside.write_text(page, encoding="utf-8")
    aside.replace(file)
    return file


def render_report(history: History) -> str:
    """The page. All text from the run is escaped: completions may hold any markup."""
    from plotly.io import to_html
    from plotly.offline import get_plotlyjs

    templates = Environment(loader=PackageLoader("align.report", "templates"), autoescape=True)
    templates.filters["number"] = _number
    measured = read_measured(history.path)  # of a reward model
    drawn = figures(history.series)
    if measured:
        drawn = [*reward_figures(history.series, measured), *drawn]
    plots = [
        to_html(
            figure,
            full_html=False,
            include_plotlyjs=False,
            div_id=f"plot-{index}",
            config={"displaylogo": False, "responsive": True},
        )
        for index, figure in enumerate(drawn)
    ]
    return templates.get_template("page.html.jinja").render(
        title=f"Run {history.path.resolve().name}",
        summary=_summary(history, measured),
        plotly=get_plotlyjs(),
        plots=plots,
        evaluations=_evaluations(history),
        samples=[(step, _terms(rows), rows) for step, rows in history.samples],
        recipe=history.recipe,
        environment=[(name, _plain(value)) for name, value in history.environment.items()],
    )


def _summary(history: History, measured: dict[str, Any] | None) -> str:
    parts = [f"{history.last_step} steps"]
    spent = sum(value for _, value in history.series.get("time/step", []))
    if spent:
        parts.append(f"{clock_time(spent)} of stages")
    tokens = sum(value for _, value in history.series.get("tokens/completion", []))
    if tokens:
        parts.append(f"{tokens:,.0f} completion tokens")
    if started := history.environment.get("started"):
        parts.append(f"last started {started}")
    if measured:
        parts.append(summary_line(measured))
    return " · ".join(parts)


def _evaluations(history: History) -> list[dict[str, Any]]:
    return [
        {
            "part": name.removeprefix("eval/"),
            "first": points[0][0],
            "before": points[0][1],
            "last": points[-1][0],
            "after": points[-1][1],
        }
        for name, points in history.series.items()
        if name.startswith("eval/")
    ]


def _terms(rows: list[dict[str, Any]]) -> list[str]:
    return [name.removeprefix("reward/") for name in rows[0] if name.startswith("reward/")] if rows else []


def _number(value: float | None, outcome: str | None = None) -> str:
    """A value, or why there is none."""
    return f"{value:.3f}" if value is not None else (outcome or "–")


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return value if isinstance(value, str) else json.dumps(value)
