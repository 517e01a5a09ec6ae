"""What each style of reward function is called with.

TRL, verl, OpenRLHF and verifiers pass the same facts under other names and in other shapes; a function
written for one of them gets here what it gets there, as far as a row has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from align.reward.contract import Sample
from align.reward.functions.registry import RewardFunction
from align.reward.functions.style import ANSWERS, LOOSE_ANSWERS, TRL, TRLX, VERL_LISTS
from align.types import Message


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: ``trainer_state`` of functions written for TRL."""

    global_step: int = 0
    """Updates of the policy so far: 0 while the first step's answers are scored."""
    max_steps: int = 1
    """Steps of the whole run."""
    log_history: list[Mapping[str, float]] = field(default_factory=list)
    """Empty: a reward process sees no metrics."""
    is_world_process_zero: bool = True

    @property
    def epoch(self) -> float:
        """The share of the run that is done; TRL counts passes through the data."""
        return self.global_step / max(self.max_steps, 1)


START = Progress()
"""Before the first step, or outside a run."""


def single(function: RewardFunction, sample: Sample) -> dict[str, Any]:
    """Keyword arguments of a verl or verifiers function for one sample.

    Raises:
        RewardError: the row lacks a column that the function needs.
    """
    if function.style.name == "verifiers":
        return _taken(function, _verifiers(function, sample))
    return _taken(function, _verl(function, sample))


def several(function: RewardFunction, samples: Sequence[Sample], progress: Progress) -> dict[str, Any]:
    """Keyword arguments of a list function in the style of TRL, verl, OpenRLHF or trlX.

    Args:
        function: the function.
        samples: whose prompts are all texts or all messages, for TRL's style.
        progress: where the run stands.

    Raises:
        RewardError: a row lacks a column that the function needs.
    """
    if function.style.name == "trl":
        return _taken(function, _trl(function, samples, progress))
    if function.style.name == "openrlhf":
        return _taken(function, _openrlhf(function, samples))
    if function.style.name == "trlx":
        return _taken(function, _trlx(function, samples))
    rows = [_verl(function, sample) for sample in samples]
    given = {name for row in rows for name in row}
    return _taken(
        function, {name: [row.get(one) for row in rows] for name, one in VERL_LISTS.items() if one in given}
    )


def prompt_text(sample: Sample) -> str:
    """The row's own text; of messages, their contents one below the other."""
    if sample.prompt_from_text:  # a system message of the recipe may stand before it
        return sample.prompt[-1]["content"] if sample.prompt else ""
    return "\n".join(message["content"] for message in sample.prompt)


def _trl(function: RewardFunction, samples: Sequence[Sample], progress: Progress) -> dict[str, Any]:
    names = {name for sample in samples for name in sample.columns} - TRL - {"prompt", "completion"}
    offered: dict[str, Any] = {name: [sample.get(name) for sample in samples] for name in names}
    texts = bool(samples) and samples[0].prompt_from_text
    offered |= {
        "prompts": [prompt_text(sample) if texts else _messages(sample.prompt) for sample in samples],
        "completions": [sample.completion if texts else _answer(sample) for sample in samples],
        "completion_ids": [list(sample.token_ids) for sample in samples],
        "trainer_state": progress,
        "log_extra": _ignore,
        "log_metric": _ignore,
    }
    for name in function.style.needs - offered.keys() - function.keywords.keys():
        offered[name] = [sample[name] for sample in samples]  # raises, naming the columns there are
    return offered


def _openrlhf(function: RewardFunction, samples: Sequence[Sample]) -> dict[str, Any]:
    prompts = [prompt_text(sample) for sample in samples]
    texts = [prompt + sample.completion for prompt, sample in zip(prompts, samples, strict=True)]
    offered: dict[str, Any] = {"queries": texts, "prompts": prompts}
    if "labels" in function.style.takes or any("label" in sample for sample in samples):
        offered["labels"] = [_truth(sample, "label", "labels") for sample in samples]
    return offered


def _trlx(function: RewardFunction, samples: Sequence[Sample]) -> dict[str, Any]:
    prompts = [prompt_text(sample) for sample in samples]
    answers = [sample.completion for sample in samples]
    names = {name for sample in samples for name in sample.columns} - TRLX - {"prompt", "completion"}
    offered: dict[str, Any] = {name: [sample.get(name) for sample in samples] for name in names}
    offered |= {
        "samples": [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)],
        "prompts": prompts,
        "outputs": answers,
    }
    for name in function.style.needs - offered.keys() - function.keywords.keys():
        offered[name] = [sample[name] for sample in samples]  # raises, naming the columns there are
    return offered


def _verl(function: RewardFunction, sample: Sample) -> dict[str, Any]:
    columns, takes = sample.columns, function.style.takes
    offered: dict[str, Any] = {
        "data_source": columns.get("data_source", sample.part),
        "extra_info": columns.get("extra_info", dict(columns)),
    }
    wanted = {VERL_LISTS.get(name, name) for name in takes} & (ANSWERS | LOOSE_ANSWERS)
    offered |= dict.fromkeys(wanted or {"solution_str"}, sample.completion)
    if {"ground_truth", "ground_truths"} & takes or _has_truth(sample):
        offered["ground_truth"] = _truth(sample)
    return offered


def _verifiers(function: RewardFunction, sample: Sample) -> dict[str, Any]:
    style, columns = function.style, sample.columns
    prompt, completion = _messages(sample.prompt), _answer(sample)
    own = {name: columns[name] for name in ("answer", "task", "info") if name in columns}
    if "answer" not in own and _has_truth(sample):
        own["answer"] = _truth(sample)
    offered: dict[str, Any] = dict(columns) if style.takes_any else {}
    offered |= {name: columns[name] for name in style.takes & columns.keys()}
    offered |= {"task": sample.part or "default", "info": {}} | own
    offered |= {
        "prompt": prompt_text(sample) if "prompt" in style.texts else prompt,
        "completion": sample.completion if "completion" in style.texts else completion,
        "parser": Parser(),
    }
    offered["state"] = {
        **columns,
        **{name: offered[name] for name in ("task", "info", "answer") if name in offered},
        "prompt": prompt,
        "completion": completion,
        "is_completed": True,
        "is_truncated": sample.truncated,
    }
    for name in style.needs - offered.keys() - function.keywords.keys():
        offered[name] = sample[name]  # raises, naming the columns there are
    return offered


class Parser:
    """The plain parser of verifiers: an answer is the text as it is."""

    def parse(self, text: str) -> str:
        """The text."""
        return text

    def get_format_reward_func(self) -> Callable[..., float]:
        """A reward that is always 1: text as it is has no form to miss."""

        def format_reward_func(completion: str | Sequence[Message], **_: Any) -> float:
            return 1.0

        return format_reward_func

    def get_assistant_messages(self, completion: Sequence[Message]) -> list[Message]:
        """The assistant's turns."""
        return [message for message in completion if message["role"] == "assistant"]

    def parse_answer(self, completion: str | Sequence[Message]) -> str | None:
        """The text of the assistant's last turn."""
        if isinstance(completion, str):
            return self.parse(completion)
        turns = self.get_assistant_messages(completion)
        return self.parse(turns[-1]["content"]) if turns else None


def _has_truth(sample: Sample) -> bool:
    row = sample.get("reward_model")
    inside = isinstance(row, Mapping) and "ground_truth" in row
    return inside or "ground_truth" in sample or "answer" in sample


def _truth(sample: Sample, *names: str) -> Any:
    """The first of the named columns, ``ground_truth``, ``reward_model.ground_truth``, ``answer``.

    Raises:
        RewardError: the row has none of them.
    """
    for name in (*names, "ground_truth"):
        if name in sample:
            return sample[name]
    row = sample.get("reward_model")
    if isinstance(row, Mapping) and "ground_truth" in row:
        return row["ground_truth"]
    if "answer" in sample:
        return sample["answer"]
    return sample[names[0] if names else "ground_truth"]  # raises, naming the columns there are


def _messages(prompt: Sequence[Message]) -> list[dict[str, str]]:
    return [dict(message) for message in prompt]


def _answer(sample: Sample) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": sample.completion}]


def _taken(function: RewardFunction, offered: Mapping[str, Any]) -> dict[str, Any]:
    style = function.style
    return {
        name: value
        for name, value in offered.items()
        if (style.takes_any or name in style.takes) and name not in function.keywords
    }


def _ignore(*_: Any, **__: Any) -> None:
    """Stands in for TRL's logging callbacks; what a reward reports here are its return values."""
