"""Every completion with every reward term, as parquet files and back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from align.packed import mean
from align.types import Prompt, StepStats

_NAME = re.compile(r"step-(\d{6,})\.parquet")

_FIELDS = [
    ("step", pa.int64()),
    ("prompt_id", pa.string()),
    ("part", pa.string()),
    ("sample_index", pa.int64()),
    ("prompt", pa.string()),
    ("prompt_messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
    ("completion", pa.string()),
    ("finish_reason", pa.string()),
    ("prompt_tokens", pa.int64()),
    ("tokens", pa.int64()),
    ("weight_version", pa.int64()),
    ("versions", pa.list_(pa.struct([("version", pa.int64()), ("tokens", pa.int64())]))),
    ("seed", pa.int64()),
    ("logprob_mean", pa.float64()),
    ("reward", pa.float64()),
    ("advantage", pa.float64()),
]


class RolloutSink:
    """``rollouts/step-000001.parquet``, one row per completion."""

    def __init__(self, folder: Path, every: int, total_steps: int, start_step: int) -> None:
        """
        Args:
            folder: made at the first write.
            every: steps between files; the first and the last step always have one.
            total_steps: number of the last step.
            start_step: steps done before this start; files of later steps are removed.
        """
        self._folder, self._every, self._total = folder, every, total_steps
        for step, file in rollout_files(folder):
            if step > start_step:
                file.unlink()

    def write(self, stats: StepStats) -> None:
        """Write the step's file, unless the step is skipped or has no samples."""
        due = (stats.step - 1) % self._every == 0 or stats.step == self._total
        if stats.groups and due:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = self._folder / f"step-{stats.step:06d}.parquet"
            aside = file.with_name(f".tmp-{file.name}")
            pq.write_table(rollout_table(stats), aside, compression="zstd")
            aside.replace(file)


def rollout_files(folder: Path) -> list[tuple[int, Path]]:
    """(step, file) of every rollout file, by step."""
    matches = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(match[1]), path) for match, path in matches if match)


def rollout_table(stats: StepStats) -> pa.Table:
    """One row per completion in (prompt, sample) order of ``stats.groups``.

    Each term adds ``reward/<term>`` (raw value, null unless it is ok) and ``outcome/<term>``
    (ok, abstain, error or timeout; null where the term was not asked).
    """
    found = {(score.prompt_id, score.sample_index): score for score in stats.scores}
    samples = [(group, one) for group in stats.groups for one in group.completions]
    scores = [found.get((one.prompt_id, one.sample_index)) for _, one in samples]
    asked = {
        group.prompt.id: (prompt_text(group.prompt), list(group.prompt.messages)) for group in stats.groups
    }
    columns: dict[str, list[Any]] = {
        "step": [stats.step] * len(samples),
        "prompt_id": [group.prompt.id for group, _ in samples],
        "part": [group.prompt.part for group, _ in samples],
        "sample_index": [one.sample_index for _, one in samples],
        "prompt": [asked[group.prompt.id][0] for group, _ in samples],
        "prompt_messages": [asked[group.prompt.id][1] for group, _ in samples],
        "completion": [one.text for _, one in samples],
        "finish_reason": [one.finish_reason for _, one in samples],
        "prompt_tokens": [len(group.prompt.token_ids) for group, _ in samples],
        "tokens": [len(one.token_ids) for _, one in samples],
        "weight_version": [one.weight_version for _, one in samples],
        "versions": [
            [{"version": version, "tokens": tokens} for version, tokens in one.versions] for _, one in samples
        ],
        "seed": [one.seed for _, one in samples],
        "logprob_mean": [mean(one.logprobs) for _, one in samples],
        "reward": [score.reward if score else None for score in scores],
        "advantage": list(stats.advantages),
    }
    fields = list(_FIELDS)
    for term in dict.fromkeys(name for score in stats.scores for name in score.terms):
        fields += [(f"reward/{term}", pa.float64()), (f"outcome/{term}", pa.string())]
        outcomes = [score.terms.get(term) if score else None for score in scores]
        columns[f"reward/{term}"] = [outcome.value if outcome else None for outcome in outcomes]
        columns[f"outcome/{term}"] = [outcome.kind if outcome else None for outcome in outcomes]
    return pa.Table.from_pydict(columns, schema=pa.schema(fields))


def prompt_text(prompt: Prompt) -> str:
    """The conversation as plain text, one paragraph per turn."""
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt.messages)
