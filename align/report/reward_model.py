"""What ``report.html`` shows of a reward model: how far it can be trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from align.report.figures import _figure, _lines
from align.report.history import Series

MEASURED = "held_out.json"

#: Metrics of the training rows; the general curves come after them.
_CURVES = (
    ("Accuracy on the step's pairs", (("train/accuracy", "share in order"),)),
    ("Score difference of the step's pairs", (("train/margin", "chosen − rejected, mean"),)),
    ("Scores of the step's rows", (("train/score_mean", "mean"), ("train/score_std", "std"))),
)


def read_measured(run: Path) -> dict[str, Any] | None:
    """The held-out measurement of a finished reward-model run; None where there is none."""
    file = run / MEASURED
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def reward_figures(series: Mapping[str, Series], measured: Mapping[str, Any]) -> list[go.Figure]:
    """Reliability, score distributions, accuracy by part, and the curves of the training rows."""
    found = [_reliability(measured), _distributions(measured), _accuracies(measured)]
    found += [_lines(title, [(series.get(name), label) for name, label in lines]) for title, lines in _CURVES]
    return [figure for figure in found if figure is not None]


def summary_line(measured: Mapping[str, Any]) -> str:
    """The measurement in one line."""
    parts = [f"{measured['rows']} held-out rows of {measured['prompts']} prompts"]
    if accuracy := measured.get("accuracy"):
        parts.append(f"accuracy {accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}]")
    if found := measured.get("reliability"):
        parts.append(f"calibration error {found['ece']:.3f}")
    if length := measured.get("length"):
        parts.append(f"score–length correlation {length['correlation']:.2f}")
        parts.append(f"counting tokens alone {length['longer_chosen']:.3f}")
        if equal := length["equal_length"]:
            parts.append(
                f"at equal length {equal['value']:.3f} [{equal['low']:.3f}, {equal['high']:.3f}] "
                f"({equal['rows']} pairs)"
            )
    return " · ".join(parts)


def _reliability(measured: Mapping[str, Any]) -> go.Figure | None:
    bins: Sequence[Mapping[str, float]] = measured.get("reliability", {}).get("bins", ())
    if not bins:
        return None
    figure = _figure(f"Reliability on held-out rows (calibration error {measured['reliability']['ece']:.3f})")
    low = min(each["low"] for each in bins)
    figure.add_scatter(x=[low, 1], y=[low, 1], name="perfect", mode="lines", line={"dash": "dot"})
    figure.add_scatter(
        x=[each["predicted"] for each in bins],
        y=[each["observed"] for each in bins],
        text=[f"{each['rows']:.0f} rows" for each in bins],
        marker={"size": [6 + 24 * (each["rows"] / measured["rows"]) ** 0.5 for each in bins]},
        name="observed",
        mode="lines+markers",
    )
    return figure.update_layout(xaxis_title="predicted probability", yaxis_title="share that came true")


def _distributions(measured: Mapping[str, Any]) -> go.Figure | None:
    histogram = measured.get("histogram")
    if not histogram:
        return None
    edges = histogram["edges"]
    centres = [(low + high) / 2 for low, high in pairwise(edges)]
    figure = _figure("Held-out scores")
    for name, counts in histogram.items():
        if name != "edges":
            figure.add_bar(x=centres, y=counts, name=name, opacity=0.6)
    return figure.update_layout(barmode="overlay", bargap=0, xaxis_title="score", yaxis_title="answers")


def _accuracies(measured: Mapping[str, Any]) -> go.Figure | None:
    """Accuracy over all rows, by part, at equal length, and what counting tokens alone would give."""
    shares = {"all": measured.get("accuracy")}
    if len(measured.get("parts", {})) > 1:
        shares |= measured["parts"]
    length = measured.get("length", {})
    shares["equal length"] = length.get("equal_length")
    known = {name: found for name, found in shares.items() if found}
    if not known:
        return None
    figure = _figure("Held-out accuracy with 95% interval")
    figure.add_scatter(
        x=list(known),
        y=[found["value"] for found in known.values()],
        error_y={
            "symmetric": False,
            "array": [found["high"] - found["value"] for found in known.values()],
            "arrayminus": [found["value"] - found["low"] for found in known.values()],
        },
        text=[f"{found['rows']} rows" for found in known.values()],
        mode="markers",
        name="accuracy",
    )
    if length:
        figure.add_hline(y=length["longer_chosen"], line_dash="dot", annotation_text="longer answer wins")
    return figure.update_layout(xaxis_title="", yaxis_range=[0, 1])
