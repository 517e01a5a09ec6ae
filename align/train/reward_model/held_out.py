"""What a reward model gets right on the prompts it never saw."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from align.algo.preference import (
    Reliability,
    Share,
    area_under_curve,
    concordance,
    correlation,
    distribution,
    length_bias,
    pair_reliability,
    pointwise_loss,
    reliability,
    share,
    wins,
)

HELD_OUT = "held_out.json"
"""In the run directory: everything below."""
CALIBRATION = "calibration.json"
"""In ``final/``: the distribution of held-out scores, which a reward bank reads."""
_HISTOGRAM_BINS = 40


@dataclass(frozen=True, slots=True)
class Columns:
    """The held-out rows beside their scores."""

    parts: list[str]
    groups_N: Tensor
    """int64, equal for rows of the same prompt."""
    lengths_NC: Tensor
    """Answer tokens of each conversation of a row: two in a pair."""
    targets_N: Tensor
    """Margins of pairs, else scores to be learnt."""

    @staticmethod
    def of(rows: Any) -> Columns:
        """Read them off the held-out data set."""
        pairs = "chosen_ids" in rows.column_names
        lengths = ["chosen_length", "rejected_length"] if pairs else ["length"]
        return Columns(
            list(rows["part"]),
            torch.tensor(list(rows["group"])),
            torch.tensor([list(rows[name]) for name in lengths], dtype=torch.float32).T,
            torch.tensor(list(rows["margin" if pairs else "score"]), dtype=torch.float32),
        )


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One measurement."""

    metrics: dict[str, float]
    """Flat, for curves and tables."""
    document: dict[str, Any]
    """All of it, for ``held_out.json``."""

    @property
    def calibration(self) -> dict[str, Any]:
        """For ``calibration.json``."""
        found: dict[str, Any] = self.document["calibration"]
        return found


def measure(kind: str, scores_NC: Tensor, columns: Columns) -> HeldOut:
    """Measure a reward model.

    Args:
        kind: ``rm.loss``.
        scores_NC: held-out scores; of pairs, chosen and rejected.
        columns: of the same rows.
    """
    scores_NC = scores_NC.float()
    summary: dict[str, Any] = {
        "loss": kind,
        "rows": len(scores_NC),
        "prompts": len(columns.groups_N.unique()),
        "calibration": distribution(scores_NC.flatten().tolist()),
    }
    if kind == "bradley_terry":
        metrics = _pairs(scores_NC, columns, summary)
    elif kind == "binary":
        metrics = _binary(scores_NC[:, 0], columns, summary)
    else:
        metrics = _regression(scores_NC[:, 0], columns, summary)
    metrics["score_mean"], metrics["score_std"] = (summary["calibration"][key] for key in ("mean", "std"))
    return HeldOut(metrics, summary)


def _pairs(scores_N2: Tensor, columns: Columns, summary: dict[str, Any]) -> dict[str, float]:
    chosen_N, rejected_N = scores_N2.unbind(1)
    won_N = wins(chosen_N, rejected_N)
    bias = length_bias(chosen_N, rejected_N, columns.lengths_NC, columns.groups_N)
    summary["length"] = asdict(bias) | {"equal_length": bias.equal_length and bias.equal_length._asdict()}
    summary["histogram"] = _histogram(chosen=chosen_N, rejected=rejected_N)
    metrics = {"loss": -F.logsigmoid(chosen_N - rejected_N - columns.targets_N).mean().item()}
    metrics |= _accuracy(won_N, columns, summary)
    metrics |= _calibrated(pair_reliability(chosen_N, rejected_N), summary)
    metrics |= {
        "length_correlation": bias.correlation,
        "length_difference_correlation": bias.difference_correlation,
        "longer_chosen": bias.longer_chosen,
        "longer_preferred": bias.longer_preferred,
    }
    if bias.equal_length:
        metrics["accuracy_equal_length"] = bias.equal_length.value
    return metrics


def _binary(scores_N: Tensor, columns: Columns, summary: dict[str, Any]) -> dict[str, float]:
    targets_N = columns.targets_N
    right_N = torch.where(targets_N > 0.5, wins(scores_N, torch.zeros(())), wins(torch.zeros(()), scores_N))
    summary["histogram"] = _histogram(positive=scores_N[targets_N > 0.5], negative=scores_N[targets_N <= 0.5])
    metrics = {"loss": pointwise_loss(scores_N, targets_N, "binary").item()}
    metrics |= _accuracy(right_N, columns, summary)
    metrics |= _calibrated(reliability(scores_N.double().sigmoid(), targets_N), summary)
    metrics |= {
        "auc": area_under_curve(scores_N, targets_N),
        "positive_share": targets_N.mean().item(),
        "length_correlation": correlation(scores_N, columns.lengths_NC[:, 0]),
    }
    return metrics


def _regression(scores_N: Tensor, columns: Columns, summary: dict[str, Any]) -> dict[str, float]:
    loss = pointwise_loss(scores_N, columns.targets_N, "regression").item()
    summary["histogram"] = _histogram(predicted=scores_N, target=columns.targets_N)
    metrics = {
        "loss": loss,
        "rmse": loss**0.5,
        "correlation": correlation(scores_N, columns.targets_N),
        "length_correlation": correlation(scores_N, columns.lengths_NC[:, 0]),
    }
    ordered = concordance(scores_N, columns.targets_N, columns.groups_N)
    if ordered is not None:  # pairs of answers to one prompt
        metrics |= _interval(ordered)
        summary["accuracy"] = ordered._asdict()
    return metrics


def _accuracy(right_N: Tensor, columns: Columns, summary: dict[str, Any]) -> dict[str, float]:
    whole = share(right_N, columns.groups_N)
    parts: dict[str, Share] = {}
    for name in dict.fromkeys(columns.parts):
        inside_N = torch.tensor([part == name for part in columns.parts])
        parts[name] = share(right_N[inside_N], columns.groups_N[inside_N])
    summary["accuracy"] = whole._asdict()
    summary["parts"] = {name: found._asdict() for name, found in parts.items()}
    metrics = _interval(whole)
    if len(parts) > 1:
        metrics |= {f"accuracy/{name}": found.value for name, found in parts.items()}
    return metrics


def _interval(found: Share) -> dict[str, float]:
    return {"accuracy": found.value, "accuracy_low": found.low, "accuracy_high": found.high}


def _calibrated(found: Reliability, summary: dict[str, Any]) -> dict[str, float]:
    summary["reliability"] = {"ece": found.ece, "bins": [each._asdict() for each in found.bins]}
    return {"ece": found.ece}


def _histogram(**series: Tensor) -> dict[str, list[float]]:
    together = torch.cat(list(series.values()))
    low, high = together.min().item(), together.max().item()
    high = high if high > low else low + 1.0
    counts = {name: torch.histc(scores, _HISTOGRAM_BINS, low, high) for name, scores in series.items()}
    edges = torch.linspace(low, high, _HISTOGRAM_BINS + 1)
    return {"edges": edges.tolist(), **{name: values.tolist() for name, values in counts.items()}}


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Replace a JSON file in one go."""
    aside = file.with_name(f".tmp-{file.name}")
    aside.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    os.replace(aside, file)
