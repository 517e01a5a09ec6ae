"""The tokens of one conversation, and of the two sides of a pair cut alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from align.errors import ModelError
from align.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a whole conversation as the chat template writes it, [L] ints.

    Raises:
        ModelError: the template refuses the conversation.
    """
    from jinja2 import TemplateError

    try:
        encoded: Any = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=True, return_dict=True, verbose=False
        )
    except TemplateError as error:
        raise ModelError(
            f"the chat template refuses this conversation: {error}",
            key="policy.chat_template",
            remedy="change the rows, or choose another template",
        ) from error
    ids: list[int] = encoded["input_ids"]
    return ids


def shared_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common from the start."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


def cut(sides: Sequence[Sequence[int]], limit: int, bos: int | None) -> list[list[int]]:
    """Each sequence's last ``limit`` tokens; a begin-of-sequence token stays in front.

    What the sides have in common is cut at the same place first, so that both keep the same context.
    """
    shared = shared_prefix(sides[0], sides[-1])
    excess = max(0, min(max(map(len, sides)) - limit, shared - 1))
    cuts = []
    for ids in sides:
        start = max(excess, len(ids) - limit)
        head = [bos] if start and ids[0] == bos else []
        cuts.append([*head, *ids[start + len(head) :]])
    return cuts
