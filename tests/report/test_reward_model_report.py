from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align.report.history import read_run
from align.report.html import write_report
from align.report.reward_model import reward_figures, summary_line

SHARE = {"value": 0.7, "low": 0.6, "high": 0.8, "rows": 90}
MEASURED: dict[str, Any] = {
    "loss": "bradley_terry",
    "rows": 90,
    "prompts": 80,
    "accuracy": SHARE,
    "parts": {"chat": SHARE, "<b>maths": {**SHARE, "value": 0.9}},
    "reliability": {
        "ece": 0.05,
        "bins": [
            {"low": 0.5, "high": 0.55, "rows": 60, "predicted": 0.52, "observed": 0.55},
            {"low": 0.9, "high": 0.95, "rows": 30, "predicted": 0.92, "observed": 0.8},
        ],
    },
    "length": {
        "correlation": 0.1,
        "difference_correlation": 0.2,
        "longer_chosen": 0.55,
        "longer_preferred": 0.6,
        "equal_length": {**SHARE, "rows": 12},
    },
    "histogram": {"edges": [0.0, 1.0, 2.0], "chosen": [1.0, 4.0], "rejected": [3.0, 2.0]},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    steps = [
        {"step": 1, "train/loss": 0.69, "train/accuracy": 0.5, "train/margin": 0.0},
        {"step": 2, "train/loss": 0.5, "train/accuracy": 0.75, "train/margin": 0.4, "eval/accuracy": 0.7},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    (tmp_path / "resolved.yaml").write_text("kind: rm\n")
    (tmp_path / "held_out.json").write_text(json.dumps(MEASURED))
    return tmp_path


def test_the_page_has_every_plot(run: Path):
    page = write_report(run).read_text(encoding="utf-8")
    for title in (
        "Reliability on held-out rows",
        "Held-out scores",
        "Held-out accuracy",
        "Accuracy on the step",
        "Loss",
        "Held-out eval",
    ):
        assert title in page
    assert "2 steps · 90 held-out rows of 80 prompts · accuracy 0.700 [0.600, 0.800]" in page
    assert "kind: rm" in page


def test_figures_show_what_was_measured(run: Path):
    figures = reward_figures(read_run(run).series, MEASURED)
    titles = [figure.layout.title.text for figure in figures]
    assert titles[:3] == [
        "Reliability on held-out rows (calibration error 0.050)",
        "Held-out scores",
        "Held-out accuracy with 95% interval",
    ]
    reliability, scores, accuracy = figures[:3]
    assert list(reliability.data[1].x) == [0.52, 0.92]
    assert list(reliability.data[1].y) == [0.55, 0.8]
    assert list(scores.data[0].x) == [0.5, 1.5]
    assert list(scores.data[1].y) == [3, 2]
    assert list(accuracy.data[0].x) == ["all", "chat", "<b>maths", "equal length"]
    assert list(accuracy.data[0].error_y.arrayminus) == pytest.approx([0.1, 0.1, 0.3, 0.1])


def test_point_wise_models_have_fewer_plots(run: Path):
    measured = {"rows": 9, "prompts": 9, "histogram": MEASURED["histogram"]}
    titles = [figure.layout.title.text for figure in reward_figures(read_run(run).series, measured)]
    assert titles[0] == "Held-out scores"
    assert summary_line(measured) == "9 held-out rows of 9 prompts"


def test_the_line_says_what_counting_tokens_would_give():
    line = summary_line(MEASURED)
    assert "counting tokens alone 0.550" in line
    assert "at equal length 0.700 [0.600, 0.800] (12 pairs)" in line


def test_an_unfinished_run_has_curves_alone(run: Path):
    (run / "held_out.json").unlink()
    page = write_report(run).read_text(encoding="utf-8")
    assert "Loss" in page
    assert "Reliability" not in page
