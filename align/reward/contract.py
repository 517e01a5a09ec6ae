"""What a reward function sees and how it marks itself. Light: standard library only.

from align.reward import Sample, reward

@reward
def exact(sample: Sample) -> float | None:
    return float(sample.completion.strip() == sample["answer"])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from align.errors import RewardError
from align.packed import Listed
from align.types import Completion, FinishReason, Message, Prompt

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion with its prompt and the columns of its row. Read-only."""

    prompt: tuple[Message, ...]
    """The conversation that was answered."""
    completion: str
    """The answer, decoded without special tokens; with ``rollout.keep_special_tokens``, without those that
    begin, end and pad a text."""
    token_ids: Sequence[int] = ()
    """[T] ints, the end-of-sequence token included when it was sampled."""
    finish_reason: FinishReason = "stop"
    """``length`` when the answer was cut off at ``max_new_tokens``."""
    max_new_tokens: int = 0
    """The limit under which the answer was sampled; 0 when unknown."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The row's other columns; ``sample["answer"]`` reads one."""
    part: str = ""
    """The mixture part of the row."""
    prompt_id: str = ""
    sample_index: int = 0
    prompt_from_text: bool = False
    """The row's prompt was text, not messages: functions written for TRL then get texts, as from TRL."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (
            self.prompt,
            self.completion,
            Listed(self.token_ids),
            self.finish_reason,
            self.max_new_tokens,
            self.columns,
            self.part,
            self.prompt_id,
            self.sample_index,
            self.prompt_from_text,
        )

    @property
    def truncated(self) -> bool:
        """Whether the answer was cut off at the length limit."""
        return self.finish_reason == "length"

    def __getitem__(self, column: str) -> Any:
        """The value of a column.

        Raises:
            RewardError: the row has no such column.
        """
        if column not in self.columns:
            known = ", ".join(sorted(self.columns)) or "none"
            where = f" of part {self.part!r}" if self.part else ""
            raise RewardError(
                f"the row{where} has no column {column!r} (its columns: {known})",
                key=column,
                remedy="map it under data.parts.<part>.columns, or keep the term off such rows with `where`",
            )
        return self.columns[column]

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def get(self, column: str, default: Any = None) -> Any:
        """The value of a column, or ``default`` where the row lacks it."""
        return self.columns.get(column, default)

    @classmethod
    def of(cls, prompt: Prompt, completion: Completion, *, max_new_tokens: int) -> Sample:
        """The sample that a prompt and one of its completions make."""
        return cls(
            prompt=prompt.messages,
            completion=completion.text,
            token_ids=completion.token_ids,
            finish_reason=completion.finish_reason,
            max_new_tokens=max_new_tokens,
            columns=prompt.columns,
            part=prompt.part,
            prompt_id=prompt.id,
            sample_index=completion.sample_index,
            prompt_from_text=prompt.from_text,
        )


@dataclass(frozen=True, slots=True)
class Mark:
    """What ``@reward`` leaves on a function."""

    name: str
    timeout: float | None
    batched: bool


@overload
def reward(function: F, /) -> F: ...
@overload
def reward(
    *, name: str | None = None, timeout: float | None = None, batched: bool = False
) -> Callable[[F], F]: ...
def reward(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    timeout: float | None = None,
    batched: bool = False,
) -> F | Callable[[F], F]:
    """Mark a function as a reward; the function itself stays as it is.

    Args:
        name: what it is called, where that is not its Python name.
        timeout: seconds one call may take; the recipe may set another.
        batched: the function takes the list of a group's samples and returns a list as long.
    """

    def mark(function: F) -> F:
        function.__align_reward__ = Mark(name or function.__name__, timeout, batched)  # type: ignore[attr-defined]
        return function

    return mark if function is None else mark(function)
