"""What a template would leave out of a conversation without a word is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from align.chat.render import Chat, reasoning_key, template_of
from align.dataset.messages.thoughts import check_thoughts
from align.errors import DataError, ModelError
from align.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KEEP = "columns: {messages: \"messages | keep('role', 'content')\"}"


def check_kept(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    tools: Sequence[Any] | None = None,
    template: str | None = None,
    earlier_reasoning: bool = False,
    keep: str = _KEEP,
    tools_from: str | None = None,
) -> None:
    """Refuse a conversation of which the template does not write everything.

    Looked at is what not every template reads: reasoning, calls, names and tools. A tool's name, and the id
    of the call that it answers, need not be written.

    Args:
        tokenizer: gives the template.
        messages: the conversation.
        tools: of the row.
        template: its source; default: the tokenizer's own.
        earlier_reasoning: templates may leave out the reasoning of turns, as many do with earlier ones.
        keep: how the recipe leaves a turn's keys out (``said``), for the remedy.
        tools_from: the column of the tools, for messages; default: ``tools``.

    Raises:
        DataError: naming turn and key; reasoning is there twice, or left open (``thoughts``).
        ModelError: the template refuses the conversation.
    """
    check_thoughts(messages, template or template_of(tokenizer, tools), whole=not earlier_reasoning)
    extras = [
        (turn, key)
        for turn, message in enumerate(messages)
        for key in message
        if key in ("reasoning_content", "tool_calls") or (key == "name" and message["role"] != "tool")
    ]
    inline = [] if earlier_reasoning else [turn for turn, each in enumerate(messages) if _reasons(each)]
    if not (extras or tools or inline):
        return
    whole = Chat(tokenizer, messages, tools=tools, template=template)
    text = whole.text()
    for turn, key in extras:
        if key == "reasoning_content" and earlier_reasoning and reasoning_key(whole.template):
            continue
        bare = {name: value for name, value in messages[turn].items() if name != key}
        less = [*messages[:turn], bare, *messages[turn + 1 :]]
        if _renders(tokenizer, less, tools, template) == text:
            raise _left_out(f"turn {turn + 1} has {key}", keep)
    if tools and _renders(tokenizer, messages, None, template) == text:
        column = tools_from or "tools"
        raise _left_out(f"the row has {column}", f"columns: {{{column}: none}}")
    for turn in inline:
        thought = messages[turn]["content"].rpartition("</think>")[0]
        if not all(words.strip() in whole.shown(text) for words in thought.split("<think>")):
            raise _left_out(f"turn {turn + 1} has reasoning inside <think>", "take it out by regex_replace")


def _reasons(message: Message) -> bool:
    return message["role"] == "assistant" and "</think>" in message["content"]


def _renders(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Any, template: str | None
) -> str | None:
    try:
        return Chat(tokenizer, messages, tools=tools, template=template).text()
    except ModelError:  # it cannot do without
        return None


def _left_out(what: str, drop: str) -> DataError:
    return DataError(
        f"{what}, which the chat template does not write",
        remedy=f"name a template that does (policy.chat_template), or leave it out: {drop}",
    )
