"""A conversation as a chat template writes it.

A message is what ``align.types.Message`` says. Templates differ in what they call its parts, and take less
than a message may have; what they are handed is adapted here.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateSyntaxError

from align.chat.markers import Encoded, Guard
from align.errors import ModelError
from align.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE_KEY = "policy.chat_template"
REASONING = ("reasoning_content", "reasoning", "thinking")
"""What templates call the reasoning of a turn."""


class RefusedConversation(ModelError):
    """A template that failed on a conversation."""


class Chat:
    """One conversation under one template.

    ``text`` and ``marked`` render it, in whole or up to a turn; ``encode`` tokenises what they gave, so
    that nothing spelt in a message becomes a special token (``align.chat.markers``).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        template: str | None = None,
    ) -> None:
        """Args:
            tokenizer: gives tokens, and the names of special tokens to the template.
            messages: the conversation.
            tools: JSON schemas of functions that may be called.
            template: its source; default: the tokenizer's own.

        Raises:
            ModelError: no template; it does not know a role; see also ``markers.Guard``.
        """
        self.tokenizer = tokenizer
        self.template = template_of(tokenizer, tools) if template is None else template
        self._guard = Guard(tokenizer, self.template, for_template(self.template, messages), tools)

    def text(self, turns: int | None = None, *, prompt: bool = False) -> str:
        """The conversation up to that many turns; with ``prompt``, and the beginning of an answer.

        Raises:
            ModelError: the template refuses the conversation.
        """
        return self._render(turns, add_generation_prompt=prompt)[0]

    def marked(self) -> tuple[str, list[tuple[int, int]]]:
        """The whole text, and the characters between the template's generation markers.

        Raises:
            ModelError: the template refuses the conversation.
        """
        # Not apply_chat_template(return_assistant_tokens_mask=True): it gives an all-zero mask when the
        # first character of an answer is a space that the tokenizer's offsets leave out.
        return self._render(None, return_assistant_tokens_mask=True)

    def shown(self, text: str) -> str:
        """A text that this conversation rendered to, as it is to be read."""
        return self._guard.shown(text)

    def encode(self, text: str, *, offsets: bool = False) -> Encoded:
        """Tokens of a text that this conversation rendered to.

        Raises:
            ModelError: as ``markers.Guard.encode``.
        """
        return self._guard.encode(text, offsets=offsets)

    def _render(self, turns: int | None, **options: bool) -> tuple[str, list[tuple[int, int]]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        options = {**self.tokenizer.special_tokens_map, **options}
        try:
            try:
                texts, spans = render_jinja_template(
                    [self._guard.messages[:turns]], self._guard.tools, chat_template=self.template, **options
                )
            except TypeError:  # some templates want the arguments of a call as text
                spelt = [_calls_spelt(message) for message in self._guard.messages[:turns]]
                texts, spans = render_jinja_template(
                    [spelt], self._guard.tools, chat_template=self.template, **options
                )
        except TemplateSyntaxError as error:  # an unknown filter is one too
            raise ModelError(
                f"the chat template is not Jinja: line {error.lineno}: {error.message}",
                file=template_file(self.tokenizer),
                key=TEMPLATE_KEY,
                remedy="mend the template, or choose another",
            ) from error
        except Exception as error:  # whatever the template's author wrote may fail in any way
            raise RefusedConversation(
                f"the chat template refuses this conversation{_line_of(error)}: {error}",
                key=TEMPLATE_KEY,
                remedy="change the rows, or choose another template",
            ) from error
        return texts[0], spans[0] if spans else []


def conversation_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, tools: Sequence[Any] | None = None
) -> list[int]:
    """Token ids of a whole conversation as the tokenizer's chat template writes it, [L] ints.

    Raises:
        ModelError: no template, or it refuses the conversation; see also :class:`Chat`.
    """
    chat = Chat(tokenizer, messages, tools=tools)
    return chat.encode(chat.text()).ids


def template_of(tokenizer: PreTrainedTokenizerBase, tools: Sequence[Any] | None = None) -> str:
    """The source of the tokenizer's chat template; with ``tools``, of the one it has for them.

    Raises:
        ModelError: it has none.
    """
    try:
        template: str = tokenizer.get_chat_template(tools=list(tools) if tools else None)
    except ValueError as error:
        raise ModelError(
            "the tokenizer has no chat template",
            file=tokenizer.name_or_path or None,
            key=TEMPLATE_KEY,
            remedy="set it to the name of a shipped template, for example chatml, or to a .jinja file",
        ) from error
    return template


def template_file(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The file of the tokenizer's own template, as far as it lies on this machine; else its name."""
    name = tokenizer.name_or_path
    places = [Path(name) / each for each in ("chat_template.jinja", "tokenizer_config.json")] if name else []
    return next((str(place) for place in places if place.is_file()), name or None)


def _line_of(error: Exception) -> str:
    """`` (line 7)``: where in the template it failed."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == "<template>"]
    return f" (line {lines[-1]})" if lines else ""


def reasoning_key(template: str) -> str | None:
    """What a template calls the reasoning of a turn; None where it reads none."""
    return next((name for name in REASONING if re.search(rf"(\.|\[['\"]){name}\b", template)), None)


def for_template(template: str, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as a template takes them.

    ``developer`` becomes ``system`` where the template does not speak of it; reasoning goes by the name the
    template has for it; weights are left out.

    Raises:
        ModelError: a turn of a tool, of which the template does not speak.
    """
    adapted = []
    for number, message in enumerate(messages, 1):
        turn = {key: value for key, value in message.items() if key != "weight"}
        if turn["role"] == "developer" and not _speaks_of(template, "developer"):
            turn["role"] = "system"
        if turn["role"] == "tool" and not _speaks_of(template, "tool"):
            raise ModelError(
                f"turn {number} is a tool's, and the chat template does not know the role 'tool'",
                key=TEMPLATE_KEY,
                remedy="choose a template that does, or drop such rows with where: "
                "\"'tool' not in messages | map(attribute='role')\"",
            )
        reasoning = turn.pop("reasoning_content", None)
        if reasoning is not None:
            turn[reasoning_key(template) or "reasoning_content"] = reasoning
        if turn.get("tool_calls") and not turn["content"]:
            turn["content"] = None  # so templates tell a call from an answer
        adapted.append(turn)
    return adapted


def _speaks_of(template: str, role: str) -> bool:
    return re.search(rf"['\"]{role}['\"]", template) is not None


def _calls_spelt(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with the arguments of its calls as JSON text, as DeepSeek's templates want them."""
    turn = dict(message)
    if turn.get("tool_calls"):
        turn["tool_calls"] = [
            {
                **call,
                "function": {
                    **call["function"],
                    "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
                },
            }
            for call in turn["tool_calls"]
        ]
    return turn
