"""The plots of the report, from metric series."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import plotly.graph_objects as go

from align.report.history import Series
from align.report.panel import reward_terms, stage_names

#: Title → (metric, legend); metrics that the run lacks are left out, empty plots too.
_PLOTS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("Loss", (("train/loss", "loss"),)),
    ("KL to the reference", (("train/kl", "KL"),)),
    ("Clip share", (("train/clip_share", "share of tokens clipped"),)),
    ("Gradient norm", (("train/grad_norm", "before clipping"),)),
    ("Learning rate", (("train/lr", "learning rate"),)),
    ("Entropy", (("train/entropy", "nats per token"),)),
    ("Balance loss", (("train/balance_loss", "expert-level"),)),
    ("Completion length, tokens", (("completion/tokens_mean", "mean"), ("completion/tokens_max", "max"))),
    (
        "Shares of samples and groups",
        (
            ("completion/truncated_share", "truncated"),
            ("group/zero_spread_share", "groups without spread"),
            ("reward/left_out_share", "left out"),
            ("outcome/error_share", "reward errors"),
            ("outcome/timeout_share", "reward timeouts"),
        ),
    ),
    ("Scoring hidden behind sampling", (("reward/hidden_share", "share of the scoring time"),)),
    (
        "Scoring, seconds",
        (("reward/wall_seconds", "whole"), ("reward/wait_seconds", "after the last group was sampled")),
    ),
    (
        "Log-probability difference, trainer and engine",
        (
            ("mismatch/logprob_mean", "samples, mean"),
            ("mismatch/logprob_max", "samples, max"),
            ("sync/probe_mean", "probe, mean"),
            ("sync/probe_max", "probe, max"),
        ),
    ),
    (
        "Importance weights",
        (("mismatch/weight_mean", "mean weight"), ("mismatch/capped_share", "share capped")),
    ),
    (
        "Tokens per second",
        (
            ("tokens/per_second", "whole step"),
            ("tokens/rollout_per_second", "rollout"),
            ("train/tokens_per_second", "training"),
        ),
    ),
    (
        "Memory, GiB",
        (
            ("memory/trainer_gib", "trainer"),
            ("memory/engine_gib", "engine"),
            ("memory/driver_gib", "driver, peak"),
        ),
    ),
)
_LOGARITHMIC = {"Log-probability difference, trainer and engine"}


def figures(series: Mapping[str, Series]) -> list[go.Figure]:
    """Every plot for which the run has a metric."""
    found = [_combined_reward(series), _reward_terms(series), _evaluations(series)]
    found += [_lines(title, ((series.get(name), label) for name, label in lines)) for title, lines in _PLOTS]
    found.append(_stages(series))
    return [figure for figure in found if figure is not None]


def _lines(title: str, lines: Iterable[tuple[Series | None, str]], mode: str = "lines") -> go.Figure | None:
    drawn = [(points, label) for points, label in lines if points]
    if not drawn:
        return None
    figure = _figure(title)
    for points, label in drawn:
        steps, values = zip(*points, strict=True)
        figure.add_scatter(x=steps, y=values, name=label, mode=mode if len(points) > 1 else "markers")
    if title in _LOGARITHMIC:
        figure.update_yaxes(type="log")
    return figure


def _combined_reward(series: Mapping[str, Series]) -> go.Figure | None:
    """Mean with a band of one standard deviation over the step's completions."""
    figure = _lines("Reward", [(series.get("reward/mean"), "mean")])
    if figure is None or "reward/std" not in series:
        return figure
    spread = dict(series["reward/std"])
    steps = [step for step, _ in series["reward/mean"] if step in spread]
    mean = dict(series["reward/mean"])
    upper = [mean[step] + spread[step] for step in steps]
    lower = [mean[step] - spread[step] for step in steps]
    figure.add_scatter(
        x=steps + steps[::-1], y=upper + lower[::-1], fill="toself", name="± std", line_width=0,
        opacity=0.3, hoverinfo="skip",
    )  # fmt: skip
    return figure


def _reward_terms(series: Mapping[str, Series]) -> go.Figure | None:
    lines = [(series[f"reward/{term}/mean"], term) for term in reward_terms(series)]
    return _lines("Reward by term, mean", lines)


def _evaluations(series: Mapping[str, Series]) -> go.Figure | None:
    parts = [name for name in series if name.startswith("eval/")]
    lines = [(series[name], name.removeprefix("eval/")) for name in parts]
    return _lines("Held-out evaluation", lines, mode="lines+markers")


def _stages(series: Mapping[str, Series]) -> go.Figure | None:
    stages = stage_names(series)
    if not stages:
        return None
    figure = _figure("Seconds per stage")
    for stage in stages:
        steps, values = zip(*series[f"time/{stage}"], strict=True)
        figure.add_bar(x=steps, y=values, name=stage)
    figure.update_layout(barmode="stack", bargap=0)
    return figure


def _figure(title: str) -> go.Figure:
    return go.Figure(
        layout={
            "title": {"text": title},
            "xaxis": {"title": {"text": "step"}},
            "height": 320,
            "margin": {"l": 60, "r": 20, "t": 50, "b": 45},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
            "showlegend": True,
            "template": "plotly_white",
        }
    )
