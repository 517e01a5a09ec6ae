"""The template that conversations are trained with.

Most models are trained with the template they ship. Some templates are made for asking only: they leave out
the reasoning of earlier turns (Qwen3, DeepSeek-R1), so that a conversation's tokens are not those the policy
wrote. For those that TRL knows there is a twin for training; for DeepSeek-R1's, one of align's own. The
tokenizer keeps its template: prompts are rendered as published.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from align.chat.render import TEMPLATE_KEY, Chat, template_of
from align.dataset.chat import TEMPLATES, TrainingTemplate, encode_conversation, has_markers, never_stops
from align.errors import ModelError
from align.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_TALK: tuple[Message, ...] = (
    {"role": "user", "content": "Hello there."},
    {"role": "assistant", "content": "Hello. What is it?"},
    {"role": "user", "content": "Nothing."},
    {"role": "assistant", "content": "Bye, then."},
)
_THINKING: tuple[Message, ...] = (
    _TALK[0],
    {"role": "assistant", "content": "<think>\nA greeting.\n</think>\n\nHello."},
)
_ASKED: tuple[tuple[Message, ...], ...] = (
    _TALK[:1],
    ({"role": "system", "content": "Be kind."}, _TALK[0]),
)


def training_template(tokenizer: PreTrainedTokenizerBase) -> TrainingTemplate:
    """The tokenizer's template where it can be trained with over several turns, else its twin.

    Args:
        tokenizer: a fast one, with its template set (``chat.set_template``).

    Raises:
        ModelError: an answer does not follow its prompt token by token, or does not end with the
            end-of-sequence token, and there is no twin.
    """
    own = template_of(tokenizer)
    candidates = []
    for source in _candidates(tokenizer, own):
        try:
            found = _checked(tokenizer, source, _TALK)
        except ModelError:
            candidates.append(source)
            continue
        if source != own:
            logger.warning("the chat template is made for asking only: its twin for training is used")
        return found
    for source in reversed(candidates):  # where the prompt begins the reasoning, rows may have to bring it
        if _begins_reasoning(tokenizer, source):
            try:
                return _checked(tokenizer, source, _THINKING)
            except ModelError:
                continue
    return _checked(tokenizer, own, _TALK[:2])


def _candidates(tokenizer: PreTrainedTokenizerBase, own: str) -> Iterator[str]:
    yield own
    ours = (TEMPLATES / "deepseek_r1.jinja").read_text(encoding="utf-8")
    if _prompts(tokenizer, own) == _prompts(tokenizer, ours):
        yield ours
    from trl.chat_template_utils import get_training_chat_template

    try:
        known = get_training_chat_template(tokenizer)
    except Exception:  # it does not know it, or the template fails on its probes in any way
        return
    if known is not None:
        yield known


def _begins_reasoning(tokenizer: PreTrainedTokenizerBase, source: str) -> bool:
    return any(prompt.rstrip().endswith("<think>") for prompt in _prompts(tokenizer, source)[:1])


def _prompts(tokenizer: PreTrainedTokenizerBase, source: str) -> list[str]:
    try:
        return [Chat(tokenizer, asked, template=source).text(prompt=True) for asked in _ASKED]
    except ModelError:
        return []


def _checked(tokenizer: PreTrainedTokenizerBase, source: str, talk: Sequence[Message]) -> TrainingTemplate:
    """The template, if it can be trained with."""
    asked = Chat(tokenizer, talk[:1], template=source)
    prompt, plain = asked.text(prompt=True), asked.text()
    template = TrainingTemplate(source)
    if has_markers(source) and prompt.startswith(plain):
        asks = prompt[len(plain) :]
        text, spans = Chat(tokenizer, talk, template=source).marked()
        start = spans[0][0] if spans else 0
        fits = (over for over in range(len(asks) + 1) if text[: start + over].endswith(asks))
        overlap = next(fits, None)
        if overlap is not None:
            template = TrainingTemplate(source, asks, overlap)
    prompt_ids = asked.encode(prompt).ids
    ids, mask = encode_conversation(tokenizer, talk, template=template)
    size = len(prompt_ids)
    if ids[:size] != prompt_ids or mask[: size + 1] != [0] * size + [1]:
        raise ModelError(
            "the tokens of a conversation do not continue those of its prompt, so the policy would be "
            "trained on other tokens than it is asked with",
            key=TEMPLATE_KEY,
            remedy="let the generation prompt end where the answer's first token starts",
        )
    last = max(place for place, bit in enumerate(mask) if bit)
    if ids[last] != tokenizer.eos_token_id:
        raise never_stops(tokenizer, str(tokenizer.convert_ids_to_tokens(ids[last])))
    return template
