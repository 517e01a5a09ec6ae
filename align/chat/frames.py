"""What a chat template writes around messages: the tokens there are its own, whatever they look like.

Found by rendering, since a template may put a marker together (``'<' + role + '>'``), and may speak of other
mark-up in the text of its default system message, which is for answers to write.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SYSTEM, _ASKED, _ANSWERED, _RESULT, _FUNCTION = "kqzsx", "kqzux", "kqzax", "kqztx", "kqzfx"
"""Texts that no template holds."""
_TALK: list[dict[str, Any]] = [
    {"role": "user", "content": _ASKED},
    {"role": "assistant", "content": _ANSWERED},
    {"role": "user", "content": _ASKED},
    {"role": "assistant", "content": _ANSWERED},
]
_CALL = {"type": "function", "function": {"name": _FUNCTION, "arguments": {}}}
_CALLED: list[dict[str, Any]] = [
    _TALK[0],
    {"role": "assistant", "content": None, "tool_calls": [_CALL]},
    {"role": "tool", "content": _RESULT},
    _TALK[1],
]
_TOOL = {"type": "function", "function": {"name": _FUNCTION, "description": "", "parameters": {}}}
_MARK = re.compile(r"(<[^<>]+>|\[[^\[\]]+\])[^<>\]]*$")


def frame_of(tokenizer: PreTrainedTokenizerBase, template: str, added: Collection[str]) -> str:
    """The text around the messages of a conversation, turn after turn, and around results and tools.

    Left out is what stands before a conversation without a system message: a default one has prose.

    Args:
        tokenizer: gives the names of special tokens to the template.
        template: its source.
        added: the spellings of the vocabulary's own list, for the closings of what encloses tools.
    """
    talk = _rendered(tokenizer, template, _TALK).split(_ASKED, 1)[1:]
    told = [_rendered(tokenizer, template, [{"role": "system", "content": _SYSTEM}, *_TALK])]
    before, result, behind = _rendered(tokenizer, template, _CALLED).partition(_RESULT)
    results = [_last_mark(before), behind] if result else []
    before, tool, _ = _rendered(tokenizer, template, _TALK, [_TOOL]).partition(_FUNCTION)
    opening = _last_mark(before) if tool else ""
    closing = closing_of(opening)
    tools = [opening, closing] if closing in added else [opening]
    pieces = "\0".join([*talk, *told, *results, *tools])
    return re.sub("|".join((_SYSTEM, _ASKED, _ANSWERED)), "\0", pieces)


def closing_of(token: str) -> str:
    """``</a>`` of ``<a>`` and ``[/a]`` of ``[a]``; itself, with a second ``/``, of a closing."""
    return f"{token[:1]}/{token[1:]}"


def _last_mark(text: str) -> str:
    found = _MARK.search(text)
    return found[1] if found else ""


def _rendered(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] | None = None,
) -> str:
    """The conversation and the beginning of a further answer; nothing where the template refuses it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, _ = render_jinja_template(
            [list(messages)],
            list(tools) if tools else None,
            chat_template=template,
            add_generation_prompt=True,
            **tokenizer.special_tokens_map,
        )
    except Exception:  # whatever the template's author wrote may fail in any way
        return ""
    return str(texts[0])
