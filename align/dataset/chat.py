"""Conversations to token ids, and which of them are trained.

A trained token is one that the policy itself has to write: the assistant's text and the
end-of-sequence token behind it. The mask says so explicitly, so it does not matter that DeepSeek
pads with that very token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import ModelError
from align.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATES = Path(__file__).parent / "templates"
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # how transformers recognises the marker
_KEY = "policy.chat_template"
_PROBE: tuple[Message, ...] = (
    {"role": "user", "content": "Hello there."},
    {"role": "assistant", "content": "Hello. What is it?"},
)


def shipped_templates() -> list[str]:
    """Names of the templates that come with align."""
    return sorted(file.stem for file in TEMPLATES.glob("*.jinja"))


def set_template(tokenizer: PreTrainedTokenizerBase, name_or_path: str | None = None) -> None:
    """Give the tokenizer a chat template and check that it can be trained with.

    Args:
        tokenizer: changed in place.
        name_or_path: a shipped template, a ``.jinja`` file, or None for the tokenizer's own.

    Raises:
        ModelError: no such template; none at all; no generation prompt; an answer does not follow
            its prompt token by token; an answer does not end with the end-of-sequence token.
    """
    if name_or_path is not None:
        file = TEMPLATES / f"{name_or_path}.jinja"
        if not file.is_file():
            file = Path(name_or_path)
        if not file.is_file():
            raise ModelError(
                f"no such chat template: {name_or_path!r}",
                key=_KEY,
                remedy=f"name a .jinja file or one of {', '.join(shipped_templates())}",
            )
        tokenizer.chat_template = file.read_text(encoding="utf-8")
    prompt = render_prompt(tokenizer, _PROBE[:1])
    ids, mask = encode_conversation(tokenizer, _PROBE)
    trained = [token for token, bit in zip(ids, mask, strict=True) if bit]
    if ids[: len(prompt)] != prompt or mask[: len(prompt) + 1] != [0] * len(prompt) + [1]:
        raise ModelError(
            "the tokens of a conversation do not continue those of its prompt, so the policy would be "
            "trained on other tokens than it is asked with",
            key=_KEY,
            remedy="let the generation prompt end where the answer's first token starts",
        )
    if trained[-1] != tokenizer.eos_token_id:
        raise ModelError(
            f"an answer ends with {tokenizer.convert_ids_to_tokens(trained[-1])!r} and not with the "
            f"end-of-sequence token {tokenizer.eos_token!r}, so it would never stop",
            key=_KEY,
            remedy="choose the template that the tokenizer was made for, or set its eos_token",
        )


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation up to and including the generation prompt, [P] ints.

    Raises:
        ModelError: no template, no generation prompt in it, or it refuses the conversation.
    """
    text = _render(tokenizer, messages, prompt=True)
    if text == _render(tokenizer, messages, prompt=False):
        raise ModelError(
            "the chat template has no generation prompt: add_generation_prompt changes nothing",
            key=_KEY,
            remedy=f"name a template that has one: {', '.join(shipped_templates())}, or a .jinja file",
        )
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]
) -> tuple[list[int], list[int]]:
    """Token ids and mask of a whole conversation.

    Returns:
        ``input_ids`` [L] and ``assistant_mask`` [L]: 1 on the tokens of every assistant turn, its
        end-of-sequence token included, else 0. From the template's ``{% generation %}`` markers;
        without them, by rendering the conversation up to each turn.

    Raises:
        ModelError: no template, it refuses the conversation, or its rendering of a turn depends on
            later turns.
    """
    if _GENERATION.search(_template(tokenizer)):
        text, spans = _marked(tokenizer, messages)
    else:
        text, spans = _by_prefix(tokenizer, messages)
    if not tokenizer.is_fast:
        raise ModelError(
            "this tokenizer does not say where its tokens stand in the text",
            key="policy.tokenizer",
            remedy="use a tokenizer with a tokenizer.json",
        )
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids: list[int] = encoded["input_ids"]
    mask = [0] * len(ids)
    eos = tokenizer.eos_token_id  # each look-up of it is slow
    for start, end in spans:
        # By the token's last character: some tokenizers leave the space before a word out of its
        # offsets. A token that begins before the answer is not the policy's own, and is left out.
        inside = [i for i, (s, e) in enumerate(encoded["offset_mapping"]) if s >= start and start < e <= end]
        stops = [i for i in inside if ids[i] == eos]
        for i in inside:
            # What a template writes behind the end token (ChatML: a line feed) is never sampled.
            mask[i] = int(not stops or i <= stops[-1])
    return ids, mask


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    try:
        template: str = tokenizer.get_chat_template()
    except ValueError as error:
        raise ModelError(
            "the tokenizer has no chat template",
            file=tokenizer.name_or_path or None,
            key=_KEY,
            remedy=f"set it to one of {', '.join(shipped_templates())}, or to a .jinja file",
        ) from error
    return template


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, prompt: bool) -> str:
    from jinja2 import TemplateError

    template = _template(tokenizer)
    try:
        text: str = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=prompt,
        )
    except TemplateError as error:
        raise _refused(error) from error
    return text


def _marked(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]
) -> tuple[str, list[tuple[int, int]]]:
    """The rendered text and the character spans between generation markers."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    # Not apply_chat_template(return_assistant_tokens_mask=True): it gives an all-zero mask when the
    # first character of an answer is a space that the tokenizer's offsets leave out.
    options: dict[str, Any] = {**tokenizer.special_tokens_map, "return_assistant_tokens_mask": True}
    try:
        texts, spans = render_jinja_template(
            [[dict(message) for message in messages]], chat_template=_template(tokenizer), **options
        )
    except TemplateError as error:
        raise _refused(error) from error
    return texts[0], spans[0]


def _by_prefix(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]
) -> tuple[str, list[tuple[int, int]]]:
    """The rendered text and, per assistant turn, the characters from its prompt's end to its own."""
    text = _render(tokenizer, messages, prompt=False)
    spans = []
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _render(tokenizer, messages[:turn], prompt=True)
        after = _render(tokenizer, messages[: turn + 1], prompt=False)
        if not after.startswith(before) or not text.startswith(after):
            raise ModelError(
                f"the chat template renders turn {turn + 1} differently on its own than inside the "
                "conversation, so the trained tokens cannot be told apart",
                key=_KEY,
                remedy="put {% generation %} … {% endgeneration %} around the answers in the template",
            )
        spans.append((len(before), len(after)))
    return text, spans


def _refused(error: Exception) -> ModelError:
    return ModelError(
        f"the chat template refuses this conversation: {error}",
        key=_KEY,
        remedy="change the rows, or choose another template",
    )
