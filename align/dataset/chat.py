"""Conversations to token ids, and which of them are trained.

A trained token is one that the policy itself has to write: the assistant's text and the
end-of-sequence token behind it. The mask says so explicitly, so it does not matter that DeepSeek
pads with that very token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.chat.render import TEMPLATE_KEY, Chat, RefusedConversation, template_file, template_of
from align.config.places import is_there
from align.errors import ModelError
from align.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATES = Path(__file__).parent / "templates"
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")  # how transformers recognises the marker
_QUESTION: Message = {"role": "user", "content": "Hello there."}
_ANSWER: Message = {"role": "assistant", "content": "Hello. What is it?"}


@dataclass(frozen=True, slots=True)
class TrainingTemplate:
    """A template that conversations are trained with, and where its answers begin."""

    source: str
    asks: str = ""
    """What it writes to ask for an answer."""
    overlap: int = 0
    """How many of those characters its generation markers enclose: they are not the policy's."""


def shipped_templates() -> list[str]:
    """Names of the templates that come with align."""
    return sorted(file.stem for file in TEMPLATES.glob("*.jinja"))


def trl_templates() -> Path:
    """The folder of TRL's templates; those for training are called ``{name}_training.jinja``."""
    from importlib.util import find_spec

    found = find_spec("trl")
    return Path(str(found.origin if found else "")).parent / "chat_templates"


def set_template(tokenizer: PreTrainedTokenizerBase, name_or_path: str | None = None) -> None:
    """Give the tokenizer a chat template and check that a policy can be asked with it.

    Whether it can be trained with is for :func:`align.dataset.training_template.training_template`.

    Args:
        tokenizer: changed in place.
        name_or_path: a shipped template, one of TRL's for training (``llama3``), a ``.jinja`` file, or
            None for the tokenizer's own.

    Raises:
        ModelError: no such template; none at all; no generation prompt; an answer does not end with the
            end-of-sequence token.
    """
    if name_or_path is not None:
        trl = trl_templates()
        files = (
            TEMPLATES / f"{name_or_path}.jinja",
            trl / f"{name_or_path}_training.jinja",
            Path(name_or_path),
        )
        file = next((file for file in files if is_there(file)), None)
        if file is None:
            others = sorted(file.stem.removesuffix("_training") for file in trl.glob("*_training.jinja"))
            raise ModelError(
                f"no such chat template: {name_or_path!r}",
                key=TEMPLATE_KEY,
                remedy=f"name a .jinja file or one of {', '.join(shipped_templates())}; of TRL's: "
                f"{', '.join(others)}",
            )
        tokenizer.chat_template = _read(file)
    source = template_file(tokenizer) if name_or_path is None else str(file)
    try:
        render_prompt(tokenizer, [_QUESTION])
        text = Chat(tokenizer, [_QUESTION, _ANSWER]).text()
    except RefusedConversation as error:  # no row's: this one is our own
        raise ModelError(
            error.message.replace("this conversation", "a plain question and its answer"),
            file=source,
            key=TEMPLATE_KEY,
            remedy="mend the template, or choose another",
        ) from error
    except ModelError as error:
        file_of = error.file if name_or_path is None else source
        raise ModelError(error.message, file=file_of, key=error.key, remedy=error.remedy) from error
    if _QUESTION["content"] not in text or _ANSWER["content"] not in text:
        raise ModelError(
            "the chat template leaves out the text of messages",
            key=TEMPLATE_KEY,
            remedy="choose one that takes content as text; those for images often do not",
        )
    behind = text.rpartition(_ANSWER["content"])[2]
    if str(tokenizer.eos_token) not in behind:
        raise never_stops(tokenizer, behind.strip() or _ANSWER["content"])


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"the chat template cannot be read: {error}",
            file=file,
            key=TEMPLATE_KEY,
            remedy="save it as UTF-8 text",
        ) from error


def never_stops(tokenizer: PreTrainedTokenizerBase, end: str) -> ModelError:
    """The error of a template whose answers end with something else than the end-of-sequence token."""
    return ModelError(
        f"an answer ends with {end!r} and not with the end-of-sequence token {tokenizer.eos_token!r}, so it "
        "would never stop",
        key=TEMPLATE_KEY,
        remedy="choose the template that the tokenizer was made for, or set its eos_token",
    )


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, tools: Sequence[Any] | None = None
) -> list[int]:
    """Token ids of a conversation up to and including the generation prompt, [P] ints.

    Nothing that a message spells becomes a special token.

    Raises:
        ModelError: no template, no generation prompt in it, or it refuses the conversation; see also
            ``align.chat.markers.Guard``.
    """
    chat = Chat(tokenizer, messages, tools=tools)
    text = chat.text(prompt=True)
    # Behind a tool's turn some templates ask for nothing more.
    if messages[-1]["role"] != "tool" and text == chat.text():
        raise ModelError(
            "the chat template has no generation prompt: add_generation_prompt changes nothing",
            key=TEMPLATE_KEY,
            remedy=f"name a template that has one: {', '.join(shipped_templates())}, or a .jinja file",
        )
    return chat.encode(text).ids


def encode_conversation(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    tools: Sequence[Any] | None = None,
    template: TrainingTemplate | None = None,
) -> tuple[list[int], list[int]]:
    """Token ids and mask of a whole conversation.

    Args:
        tokenizer: a fast one.
        messages: assistant turns of weight 0 are not trained.
        tools: functions that may be called.
        template: default: the tokenizer's own as it is.

    Returns:
        ``input_ids`` [L] and ``assistant_mask`` [L]: 1 on the tokens of every assistant turn, its
        end-of-sequence token included, else 0. From the template's ``{% generation %}`` markers;
        without them, by rendering the conversation up to each turn.

    Raises:
        ModelError: no template, it refuses the conversation, its rendering of a turn depends on later
            turns, or an answer does not begin where the policy is asked for it; see also
            ``align.chat.markers.Guard``.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            "this tokenizer does not say where its tokens stand in the text",
            key="policy.tokenizer",
            remedy="use a tokenizer with a tokenizer.json",
        )
    template = template or TrainingTemplate(template_of(tokenizer))
    chat = Chat(tokenizer, messages, tools=tools, template=template.source)
    marked = has_markers(template.source)
    text, spans = chat.marked() if marked else _by_prefix(chat, messages)
    answers = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
    if len(spans) == len(answers):
        if marked:
            spans = [
                _clipped(text, span, template, number, asked=messages[number - 1]["role"] == "user")
                for span, number in zip(spans, answers, strict=True)
            ]
        spans = [span for span, turn in zip(spans, answers, strict=True) if messages[turn].get("weight") != 0]
    elif any(message.get("weight") == 0 for message in messages):
        raise ModelError(
            f"the chat template marks {len(spans)} stretches for {len(answers)} answers, so weights of turns "
            "cannot be told apart",
            key=TEMPLATE_KEY,
            remedy="put one pair of {% generation %} markers around each answer",
        )
    ids, offsets = chat.encode(text, offsets=True)
    mask = [0] * len(ids)
    eos = tokenizer.eos_token_id  # each look-up of it is slow
    for start, end in spans:
        # By the token's last character: some tokenizers leave the space before a word out of its
        # offsets. A token that begins before the answer is not the policy's own, and is left out.
        inside = [i for i, (s, e) in enumerate(offsets) if s >= start and start < e <= end]
        stops = [i for i in inside if ids[i] == eos]
        for i in inside:
            # What a template writes behind the end token (ChatML: a line feed) is never sampled.
            mask[i] = int(not stops or i <= stops[-1])
    return ids, mask


def has_markers(template: str) -> bool:
    """Whether a template says by markers what it generates."""
    return _GENERATION.search(template) is not None


def _clipped(
    text: str, span: tuple[int, int], template: TrainingTemplate, turn: int, *, asked: bool
) -> tuple[int, int]:
    """The span without what the policy is asked with.

    Raises:
        ModelError: the answer does not begin where the policy is asked for it (``asked``: by a user).
    """
    start, end = span
    if text[: start + template.overlap].endswith(template.asks):
        return start + template.overlap, end
    if asked:
        raise ModelError(
            f"turn {turn + 1} does not begin with {template.asks!r}, which is what the policy is asked with",
            key=TEMPLATE_KEY,
            remedy="give every answer what the generation prompt begins (its reasoning), or choose a "
            "template that writes it",
        )
    return span


def _by_prefix(chat: Chat, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
    """The rendered text and, per assistant turn, the characters from its prompt's end to its own."""
    text = chat.text()
    spans = []
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = chat.text(turn, prompt=True)
        after = chat.text(turn + 1)
        if not after.startswith(before) or not text.startswith(after):
            raise ModelError(
                f"the chat template renders turn {turn + 1} differently on its own than inside the "
                "conversation, so the trained tokens cannot be told apart",
                key=TEMPLATE_KEY,
                remedy="put {% generation %} … {% endgeneration %} around the answers in the template, or "
                "name a template made for training",
            )
        spans.append((len(before), len(after)))
    return text, spans
