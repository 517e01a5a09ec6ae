"""A trained reward model: conversations in, one number each out. Here on plain torch.

A reward model reads text, not the policy's tokens: prompt and completion are rendered with its own
chat template and tokenizer, as whole conversations, because that is what it was trained on. The
number is what transformers' sequence classification gives for that row alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from align.chat.render import conversation_ids
from align.config.policy import Dtype, PolicyConfig
from align.config.rewards import RewardsConfig
from align.errors import ModelError
from align.model.attention.batching import packed_batches
from align.model.attention.shared_prefix import forward_packed, pack, use_shared_prefix
from align.model.experts.routers import is_moe
from align.model.files.check import check_model
from align.model.files.hub import reach_hub
from align.model.files.load import load_tokenizer, resolve_model
from align.types import Message

TOKEN_BUDGET = 4096
"""Tokens in one forward pass."""
PROBE: tuple[Message, ...] = ({"role": "user", "content": "Hello there."},)
"""A conversation that every template must render."""


class Scorer(Protocol):
    """A reward model on some back end."""

    max_tokens: int
    """Longest row it can read."""

    def score(self, rows: Sequence[Sequence[int]], prompts: Sequence[str]) -> list[float]:
        """One raw score a row, in order; NaN and infinity come through.

        Args:
            rows: token ids, [L_i] each, from :meth:`ScorerFiles.encode`.
            prompts: which prompt each row answers; rows of one prompt begin alike, which may be used.
        """
        ...

    def wake(self) -> None:
        """Put the weights on the device."""
        ...

    def sleep(self) -> None:
        """Free the device."""
        ...


@dataclass(frozen=True, slots=True)
class ScorerFiles:
    """What can be known of a reward model without reading its weights."""

    source: str
    """Model directory or hub id."""
    config: Any
    """transformers configuration."""
    tokenizer: Any
    max_tokens: int
    """Positions that the model has."""

    @property
    def moe(self) -> bool:
        """Whether it routes to experts."""
        return is_moe(self.config)

    def encode(self, prompt: Sequence[Message], completion: str) -> list[int]:
        """Token ids of the conversation with ``completion`` as the assistant's turn, [L] ints.

        The template ends the turn as in training, also where the completion was cut off; an end token that
        the completion spells is text. White space before the answer is dropped: templates that end their
        prompt in ``Assistant:`` leave the space to the policy, and write it themselves in a whole
        conversation. Trailing tokens that equal the padding token are dropped: transformers reads the score
        at the last other token, and with causal attention that one does not see them.

        Raises:
            ModelError: the template refuses the conversation, or nothing is left of it.
        """
        turn = {"role": "assistant", "content": completion.lstrip()}
        tokens = conversation_ids(self.tokenizer, [*prompt, turn])
        while tokens and tokens[-1] == self.config.pad_token_id:
            tokens.pop()
        if not tokens:
            raise ModelError("the conversation has no tokens")
        return tokens


def open_scorer(path: str, *, file: str | Path | None = None, key: str = "model") -> ScorerFiles:
    """Find a reward model and check all that can be without reading its weights.

    Args:
        path: model directory, run directory (its final model) or hub id.
        file: the recipe, for messages.
        key: the recipe's key that names the model.

    Raises:
        ModelError: nothing there, not a sequence classifier with one label, not all of its weights, or no
            usable chat template.
    """
    from transformers import AutoConfig

    try:
        reach_hub(path, file=file, key=key)
        source = resolve_model(path)
        config = AutoConfig.from_pretrained(source)
        tokenizer: Any = load_tokenizer(PolicyConfig(path=source))
    except ModelError as error:
        remedy = f"set {key} to a reward model: a run of `align rm`, a model directory or a hub id"
        raise ModelError(error.message, file=error.file or file, key=key, remedy=remedy) from error
    except (OSError, ValueError, json.JSONDecodeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"cannot read the reward model {source!r}: {reason}", file=file, key=key, remedy="check the files"
        ) from error
    architecture = (getattr(config, "architectures", None) or ["nothing"])[0]
    if not architecture.endswith("ForSequenceClassification") or config.num_labels != 1:
        raise ModelError(
            f"a reward model is a sequence classifier with one label, this is {architecture} with "
            f"{config.num_labels}",
            file=source,
            key=key,
            remedy="train one with `align rm`",
        )
    if not getattr(config, "quantization_config", None):
        check_model(PolicyConfig(path=source), score=True, key=key)
    files = ScorerFiles(source, config, tokenizer, int(config.max_position_embeddings))
    try:
        files.encode(PROBE, "Hello.")
    except ModelError as error:
        raise ModelError(
            f"the chat template of the reward model is unusable: {error.message}",
            file=source,
            key=key,
            remedy="save the template it was trained with beside its tokenizer (chat_template.jinja)",
        ) from error
    return files


def open_scorers(config: RewardsConfig, *, file: str | Path | None = None) -> dict[str, ScorerFiles]:
    """The reward models that a recipe's terms name, by term.

    Args:
        config: the section ``rewards``.
        file: the recipe, for messages.

    Raises:
        ModelError: as :func:`open_scorer`.
    """
    return {
        name: open_scorer(term.model, file=file, key=term_key(name))
        for name, term in config.terms.items()
        if term.model is not None
    }


def term_key(name: str) -> str:
    """The recipe's key of a term's model."""
    return f"rewards.terms.{name}.model"


class TorchScorer:
    """A reward model as a transformers module.

    Usage: ``wake()``, ``score(rows)``, ``sleep()``. On a CPU the weights stay where they are.
    """

    def __init__(
        self, files: ScorerFiles, *, device: str, dtype: Dtype = "bfloat16", token_budget: int = TOKEN_BUDGET
    ) -> None:
        """Load the weights; they stay off a GPU until :meth:`wake`.

        Args:
            files: from :func:`open_scorer`.
            device: ``cpu`` or ``cuda``.
            dtype: type of the weights; the head is computed in fp32, since bf16 scores are too coarse
                to rank a group.
            token_budget: most tokens in one forward pass.

        Raises:
            ModelError: weights are missing or unreadable, or the model is none with a score head on full
                causal attention.
        """
        from transformers import AutoModelForSequenceClassification
        from transformers.modeling_layers import GenericForSequenceClassification

        self.max_tokens = files.max_tokens
        self.device, self.token_budget = device, token_budget
        extra = {"experts_implementation": "grouped_mm"} if files.moe else {}
        try:
            model, report = AutoModelForSequenceClassification.from_pretrained(
                files.source, dtype=getattr(torch, dtype), output_loading_info=True, **extra
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ModelError(
                f"cannot read the reward model: {reason}", file=files.source, remedy="check the files"
            ) from error
        if report["missing_keys"]:  # transformers would make them up
            raise ModelError(
                f"the reward model lacks weights: {', '.join(sorted(report['missing_keys'])[:3])}",
                file=files.source,
                remedy="name a model that was saved as a sequence classifier",
            )
        if not isinstance(model, GenericForSequenceClassification):
            raise ModelError(
                f"{type(model).__name__} is no causal language model with a score head",
                file=files.source,
                remedy="name a reward model built on a causal language model",
            )
        try:
            use_shared_prefix(model)
        except ModelError as error:
            raise ModelError(
                error.message,
                file=files.source,
                remedy="give the term backend: vllm",
            ) from error
        self.model: Any = model.eval().requires_grad_(False)

    def wake(self) -> None:
        """Put the weights on the device."""
        self.model.to(self.device)

    def sleep(self) -> None:
        """Free the device: the weights wait in main memory."""
        if self.device != "cpu":
            self.model.to("cpu")
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def score(self, rows: Sequence[Sequence[int]], prompts: Sequence[str]) -> list[float]:
        """One raw score a row, in order. What the rows of a prompt have in common is computed once."""
        scores = [0.0] * len(rows)
        backbone, head = getattr(self.model, self.model.base_model_prefix), self.model.score
        shared = shared_lengths(rows, prompts)
        own = [len(row) - length for row, length in zip(rows, shared, strict=True)]
        names = [f"{row[0]} {prompt}" for row, prompt in zip(rows, prompts, strict=True)]
        for batch in packed_batches(names, shared, [length + 1 for length in own], self.token_budget):
            # A packed completion's last token is not fed: one is added, and the score read before it.
            packed = pack(
                [rows[i][: shared[i]] for i in batch],
                [[*rows[i][shared[i] :], 0] for i in batch],
                self.device,
            )
            ends_B = torch.tensor([own[i] + 1 for i in batch], device=self.device).cumsum(0) - 1
            hidden_SH = forward_packed(backbone, packed)
            hidden_BH = hidden_SH[packed.predictors_N[ends_B]].float()
            values_B = F.linear(hidden_BH, head.weight.float())[:, 0]
            for i, value in zip(batch, values_B.tolist(), strict=True):
                scores[i] = value
        return scores


def shared_lengths(rows: Sequence[Sequence[int]], prompts: Sequence[str]) -> list[int]:
    """How many first tokens each row has in common with all rows of the same prompt and first token: at
    least 1, and the whole row where it stands alone."""
    common: dict[tuple[int, str], Sequence[int]] = {}
    for row, prompt in zip(rows, prompts, strict=True):
        known = common.setdefault((row[0], prompt), row)
        same = (place for place, (a, b) in enumerate(zip(known, row, strict=False)) if a != b)
        common[row[0], prompt] = known[: next(same, min(len(known), len(row)))]
    return [len(common[row[0], prompt]) for row, prompt in zip(rows, prompts, strict=True)]
