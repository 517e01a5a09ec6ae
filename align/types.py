"""The values that pass between the parts, and the Protocols the loop talks to.

No tensors: these cross process borders. Rows of numbers are lists where they are made and travel as arrays
(``align.packed``); routed experts, an integer per token, layer and choice, are NumPy arrays.
Terms: a *prompt* is asked G times, giving a *group* of *completions*; scores turn a group into
*advantages*; all groups of a step make one *train batch*.

Notation, here and in every file (``docs/notation.md`` has where each is computed). Sizes: B rows of a batch,
N sequences of a training batch (or tokens of a packed row), G completions of a group, P tokens of a prompt,
T of a completion, S of both together, L MoE layers, E routed experts of a layer, K of them per token,
H hidden size (or heads), I intermediate size, V vocabulary, C sides of a preference row, D devices that hold
experts, M that a token may reach. A tensor's name ends in its dimensions: ``logits_BTV``. Policies: π_θ is
trained, π_old is before the step's first update, π_ref is the frozen reference, π_rollout is what the engine
computed. Objective: r reward, A advantage, ρ = π_θ / π_old, c = min(π_old / π_rollout, cap), w token weight,
β weight of the KL term, λ multiplier of a constraint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from align.packed import number_rows, sent_by_fields, token_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

Message = Mapping[str, Any]
"""One turn: ``{"role": "system" | "developer" | "user" | "assistant" | "tool", "content": text}``.

Where the data have it, also ``reasoning_content`` (text), ``tool_calls`` (as OpenAI writes them, arguments as
an object), ``name``, ``tool_call_id``, and ``weight``: 0 for an assistant's turn that is not trained."""

FinishReason = Literal["stop", "length", "cut"]
"""``cut``: unfinished, to be continued in the next step; neither scored nor trained on as it is."""
OutcomeKind = Literal["ok", "abstain", "error", "timeout"]


@sent_by_fields
@dataclass(frozen=True, slots=True)
class Prompt:
    """One question, rendered and tokenised once."""

    id: str
    """Stable name ``part/row``; seeds and grouping derive from it."""
    messages: tuple[Message, ...]
    """The conversation up to the turn to be written."""
    token_ids: Sequence[int]
    """The rendered template with its generation prompt, [P] ints."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The row's other columns; rewards read them."""
    part: str = ""
    """The mixture part that the row came from."""
    from_text: bool = False
    """The row's prompt was text, which became the user's turn; else it was messages."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer."""

    prompt_id: str
    sample_index: int
    """0 … G-1 inside its group."""
    token_ids: Sequence[int]
    """[T] ints, the end-of-sequence token included when it was sampled."""
    logprobs: Sequence[float]
    """[T] log-probabilities of those tokens as the engine sampled them (temperature applied)."""
    text: str
    """Decoded without special tokens."""
    finish_reason: FinishReason
    weight_version: int
    """Version of the policy weights that sampled its first token."""
    seed: int
    """Of its first span; those of later spans derive alike from the steps that continued it."""
    routed_experts: NDArray[Any] | None = field(default=None, compare=False)
    """uint8 or uint16 [P + T - 1, L, K]: the K experts that the engine sent each fed token to in each of
    the L MoE layers. Kept under ``grpo.replay: rollout`` alone."""
    versions: tuple[tuple[int, int], ...] = ()
    """(weight version, tokens) of each span, first token first; their tokens add up to T. More than one
    span under ``rollout.partial_tokens`` alone; filled in when not given."""

    def __post_init__(self) -> None:
        if not self.versions:
            object.__setattr__(self, "versions", ((self.weight_version, len(self.token_ids)),))


@dataclass(frozen=True, slots=True)
class Group:
    """All completions of one prompt in one step."""

    prompt: Prompt
    completions: list[Completion]

    @property
    def finished(self) -> bool:
        """None of its completions was cut."""
        return all(each.finish_reason != "cut" for each in self.completions)

    def __reduce__(self) -> tuple[Any, ...]:
        ids = token_rows(each.token_ids for each in self.completions)
        logprobs = number_rows(each.logprobs for each in self.completions)
        others = [
            (
                each.prompt_id,
                each.sample_index,
                each.text,
                each.finish_reason,
                each.weight_version,
                each.seed,
                each.routed_experts,
                each.versions,
            )
            for each in self.completions
        ]
        return _group, (self.prompt, ids, logprobs, others)


def _group(prompt: Prompt, ids: list[Any], logprobs: list[Any], others: list[Any]) -> Group:
    completions = []
    for own, said, (name, index, *rest) in zip(ids, logprobs, others, strict=True):
        completions.append(Completion(name, index, own, said, *rest))
    return Group(prompt, completions)


@sent_by_fields
@dataclass(frozen=True, slots=True)
class Outcome:
    """What one reward term said of one completion. A failure is never a number."""

    kind: OutcomeKind
    value: float | None = None
    """The raw score; None unless ``kind == "ok"``."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named components, when the function returned a mapping."""
    detail: str = ""
    """The traceback or reason of a failure."""
    seconds: float = 0.0
    steps: tuple[tuple[int, float], ...] = ()
    """(end, reward) of each step, when the function returned ``steps``; the end counts the
    characters of the completion up to it. Read under process supervision alone."""


@sent_by_fields
@dataclass(frozen=True, slots=True)
class SampleScore:
    """The combined reward of one completion and every term behind it."""

    prompt_id: str
    sample_index: int
    reward: float | None
    """Weighted sum of the terms; None when a term failed or every term abstained."""
    terms: Mapping[str, Outcome]


@dataclass(slots=True)
class TrainBatch:
    """The completions of one step that carry a gradient, flat, in (prompt, sample) order.

    N sequences; sequence i has P_i prompt tokens and T_i completion tokens.
    """

    prompt_ids: list[str]
    prompt_tokens: Sequence[Sequence[int]]
    """N rows of P_i ints."""
    completion_tokens: Sequence[Sequence[int]]
    """N rows of T_i ints."""
    rollout_logprobs: Sequence[Sequence[float]]
    """N rows of T_i floats, as the engine sampled them."""
    advantages: list[float]
    """N floats: outcome supervision gives one advantage to every token of a completion."""
    token_weights: list[float]
    """N floats: the weight of each token of sequence i in the loss. Computed over the whole
    batch before any backward pass, so that micro-batches cannot change the objective."""
    old_logprobs: Sequence[Sequence[float]] | None = None
    """N rows of T_i floats: the policy before this step's first update. None when the update
    is on-policy, where they equal the policy's own log-probabilities."""
    ref_logprobs: Sequence[Sequence[float]] | None = None
    """N rows of T_i floats from the reference model; None when β = 0."""
    token_advantages: Sequence[Sequence[float]] | None = None
    """N rows of T_i floats that the loss takes in place of ``advantages``: process supervision.
    None under outcome supervision."""
    routed_experts: list[NDArray[Any]] | None = None
    """N arrays [P_i + T_i - 1, L, K] of ``Completion.routed_experts``; None without them."""

    def __len__(self) -> int:
        return len(self.prompt_ids)

    def __reduce__(self) -> tuple[Any, ...]:
        return TrainBatch, (
            self.prompt_ids,
            token_rows(self.prompt_tokens),
            token_rows(self.completion_tokens),
            number_rows(self.rollout_logprobs),
            self.advantages,
            self.token_weights,
            number_rows(self.old_logprobs),
            number_rows(self.ref_logprobs),
            number_rows(self.token_advantages),
            self.routed_experts,
        )

    def select(self, rows: Sequence[int]) -> TrainBatch:
        """The given rows, in the given order; token weights stay those of the whole batch."""

        def pick(column: Sequence[T]) -> list[T]:
            return [column[row] for row in rows]

        return TrainBatch(
            prompt_ids=pick(self.prompt_ids),
            prompt_tokens=pick(self.prompt_tokens),
            completion_tokens=pick(self.completion_tokens),
            rollout_logprobs=pick(self.rollout_logprobs),
            advantages=pick(self.advantages),
            token_weights=pick(self.token_weights),
            old_logprobs=None if self.old_logprobs is None else pick(self.old_logprobs),
            ref_logprobs=None if self.ref_logprobs is None else pick(self.ref_logprobs),
            token_advantages=None if self.token_advantages is None else pick(self.token_advantages),
            routed_experts=None if self.routed_experts is None else pick(self.routed_experts),
        )


@dataclass(slots=True)
class StepStats:
    """What one step reports: flat ``group/name`` metrics, seconds per stage, the samples."""

    step: int
    metrics: dict[str, float]
    seconds: dict[str, float]
    """Wall seconds by stage name."""
    groups: list[Group]
    scores: list[SampleScore]
    advantages: list[float | None]
    """One per completion, in (prompt, sample) order; None for a sample left out."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """One verified push of the policy's weights into the engine."""

    version: int
    tensors: int
    bytes: int
    probe_mean: float
    """Mean absolute difference of the probe's token log-probabilities, trainer vs engine."""
    probe_max: float


class Policy(Protocol):
    """The training actor as the loop sees it."""

    def logprobs(self, batch: TrainBatch) -> Sequence[Sequence[float]]:
        """Log-probabilities of the completion tokens under the current policy."""
        ...

    def ref_logprobs(self, batch: TrainBatch) -> Sequence[Sequence[float]]:
        """The same under the frozen reference (the base model, under LoRA)."""
        ...

    def update(self, batch: TrainBatch) -> dict[str, float]:
        """One optimiser step on the whole of ``batch``; returns metrics."""
        ...


class Rollout(Protocol):
    """The rollout engine as the loop sees it."""

    def sample(
        self, prompts: Sequence[Prompt], group_size: int, step: int, carried: Sequence[Group] = ()
    ) -> Iterator[Group]:
        """Groups in the order in which they end: new ones, and those carried, whose cut completions go on.
        Under ``rollout.partial_tokens`` a group may come back with completions that were cut (again)."""
        ...


class Rewards(Protocol):
    """The reward bank as the loop sees it."""

    def submit(self, group: Group) -> None:
        """Start scoring a finished group; returns at once."""
        ...

    def collect(self) -> list[SampleScore]:
        """Wait for everything submitted; scores in (prompt, sample) order of submission."""
        ...

    def metrics(self) -> dict[str, float]:
        """Figures of everything collected since they were last asked for: of one step, which ends with it."""
        ...


class Sync(Protocol):
    """The way of the weights from trainer to engine."""

    def push(self) -> SyncReport:
        """Copy, load and verify.

        Raises:
            SyncError: trainer and engine disagree afterwards.
        """
        ...
