"""From one step's samples to flat ``group/name`` metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, pstdev

from align.types import Outcome, SampleScore, StepStats


def step_metrics(stats: StepStats) -> dict[str, float]:
    """Everything measurable about a step, beside what the trainer measured.

    Shares are in 0 … 1, standard deviations are those of the population, times are seconds. A
    metric that has nothing to be taken over (a term that always failed, a step without samples)
    is left out. ``docs/runs.md`` lists the names.

    Args:
        stats: one step; ``groups`` may be empty (supervised fine-tuning).
    """
    return {
        **stats.metrics,
        **_reward_metrics(stats),
        **_outcome_metrics(stats.scores),
        **_length_metrics(stats),
        **_time_metrics(stats),
    }


def _reward_metrics(stats: StepStats) -> dict[str, float]:
    scores = stats.scores
    metrics = _mean_std("reward", [score.reward for score in scores])
    for term in _names(score.terms for score in scores):
        outcomes = [score.terms[term] for score in scores if term in score.terms]
        metrics |= _mean_std(f"reward/{term}", [outcome.value for outcome in outcomes])
        for part in _names(outcome.parts for outcome in outcomes):
            values = [outcome.parts.get(part) for outcome in outcomes]
            metrics |= _mean_std(f"reward/{term}.{part}", values)
    if scores:
        metrics["reward/left_out_share"] = fmean(score.reward is None for score in scores)
        metrics["group/zero_spread_share"] = _zero_spread_share(stats)
    return metrics


def _zero_spread_share(stats: StepStats) -> float:
    """Share of groups that teach nothing: their rewards, failures left out, do not differ."""
    rewards = {(score.prompt_id, score.sample_index): score.reward for score in stats.scores}
    flat = []
    for group in stats.groups:
        found = [rewards.get((one.prompt_id, one.sample_index)) for one in group.completions]
        flat.append(len({reward for reward in found if reward is not None}) < 2)
    return fmean(flat) if flat else 0.0


def _outcome_metrics(scores: Sequence[SampleScore]) -> dict[str, float]:
    """Share of reward calls that ended otherwise than with a value."""
    calls: list[Outcome] = [outcome for score in scores for outcome in score.terms.values()]
    if not calls:
        return {}
    kinds = ("abstain", "error", "timeout")
    return {f"outcome/{kind}_share": fmean(call.kind == kind for call in calls) for kind in kinds}


def _length_metrics(stats: StepStats) -> dict[str, float]:
    completions = [completion for group in stats.groups for completion in group.completions]
    if not completions:
        return {}
    lengths = [len(completion.token_ids) for completion in completions]
    total = sum(lengths)
    metrics = {
        "completion/tokens_mean": total / len(lengths),
        "completion/tokens_max": float(max(lengths)),
        "completion/truncated_share": fmean(one.finish_reason == "length" for one in completions),
        "tokens/completion": float(total),
        "tokens/prompt": float(
            sum(len(group.prompt.token_ids) * len(group.completions) for group in stats.groups)
        ),
    }
    whole, rollout = sum(stats.seconds.values()), stats.seconds.get("rollout", 0.0)
    if whole > 0:
        metrics["tokens/per_second"] = total / whole
    if rollout > 0:
        metrics["tokens/rollout_per_second"] = total / rollout
    return metrics


def _time_metrics(stats: StepStats) -> dict[str, float]:
    if not stats.seconds:
        return {}
    return {**{f"time/{name}": spent for name, spent in stats.seconds.items()},
            "time/step": sum(stats.seconds.values())}  # fmt: skip


def _mean_std(name: str, values: Iterable[float | None]) -> dict[str, float]:
    found = [value for value in values if value is not None]
    return {f"{name}/mean": fmean(found), f"{name}/std": pstdev(found)} if found else {}


def _names(mappings: Iterable[Iterable[str]]) -> list[str]:
    """All keys, in order of first appearance."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))
