"""One turn of a conversation, from whatever form a data set gives it.

Read are messages with ``role`` and ``content`` (OpenAI) and with ``from`` and ``value`` (ShareGPT), content
as text or as parts of text, and beside them what is listed at :data:`KEYS`. Nothing vanishes: what is not
known is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from align.chat.render import REASONING
from align.errors import DataError
from align.types import Message

ROLES = ("system", "developer", "user", "assistant", "tool")
SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": "assistant",
}
"""ShareGPT's names, and those of data sets in its form."""
WEIGHTS = ("weight", "loss", "train")
KEYS = ("role", "content", "from", "value", *WEIGHTS, *REASONING, "tool_calls", "function_call", "name",
        "tool_call_id")  # fmt: skip
"""What a message may have."""


def turns_of(value: Any, column: str, role: str) -> list[Message]:
    """A text as one turn of ``role``, or a list of messages.

    Args:
        value: of the column.
        column: its name, for error messages.
        role: whose turn a text is.

    Raises:
        DataError: neither; a message without role or content; a key, role, kind of part or weight that is
            not known; a call that cannot be read; a lone surrogate.
    """
    if isinstance(value, str):
        check_text(value, column)
        return [{"role": role, "content": value}]
    if isinstance(value, Mapping):  # one message, as pairs of answers are often written
        value = [value]
    if not isinstance(value, Sequence):
        raise DataError(
            f"{column} is {type(value).__name__}, not text or a list of messages",
            remedy=f"make it text: columns: {{{column}: '{column} | string'}}",
        )
    return [_turn(turn, f"{column}: turn {number}", column) for number, turn in enumerate(value, 1)]


def _turn(turn: Any, where: str, column: str) -> Message:
    if not isinstance(turn, Mapping):
        raise _no_message(where)
    given = {key: value for key, value in turn.items() if value is not None}  # Arrow fills up with None
    check_text(given, where)
    unknown = [key for key in given if key not in KEYS]
    if unknown:
        raise DataError(
            f"{where} has {', '.join(map(repr, unknown))}, which is not known",
            remedy="name what to keep, and leave the rest out: "
            f'columns: {{{column}: "{column} | {_kept(given)}"}}; known are {", ".join(KEYS)}',
        )
    for one, other in (("role", "from"), ("content", "value")):
        if one in given and other in given:
            raise DataError(f"{where} has {one} and {other}", remedy="keep one of them")
    call = given.get("from") == "function_call"
    role = _role(given, where)
    message: dict[str, Any] = {"role": role}
    calls = _calls(given, where)
    content = given.get("content", given.get("value"))
    if call:
        calls, content = [_call(content, where)], ""
    if content is None and (calls or any(given.get(name) for name in REASONING)):
        content = ""
    message["content"] = _content(content, where)
    if calls:
        message["tool_calls"] = calls
    reasoning = [given[name] for name in REASONING if given.get(name)]
    if reasoning:
        if not isinstance(reasoning[0], str) or any(other != reasoning[0] for other in reasoning):
            raise DataError(f"{where}: its reasoning is not one text", remedy="keep one of its keys")
        message["reasoning_content"] = reasoning[0]
    for key in ("name", "tool_call_id"):
        if given.get(key):
            message[key] = given[key]
    if not _trained(given, role, where):
        message["weight"] = 0
    for key in ("tool_calls", "reasoning_content"):
        if key in message and role != "assistant":
            raise DataError(f"{where} has {key}, but is the {role}'s", remedy=f"only the assistant has {key}")
    return message


def _role(given: Mapping[str, Any], where: str) -> str:
    if isinstance(given.get("role"), str):
        return str(given["role"])  # checked with the order of turns
    speaker = given.get("from")
    if not isinstance(speaker, str):
        raise _no_message(where)
    if speaker not in SPEAKERS:
        raise DataError(f"{where} is from {speaker!r}", remedy=f"known are {', '.join(SPEAKERS)}")
    return SPEAKERS[speaker]


def _content(content: Any, where: str) -> str:
    """Text, or parts of text joined."""
    if isinstance(content, str):
        return content
    if content is None:
        raise DataError(f"{where} has no content", remedy="give it text, or drop such rows with where:")
    if not isinstance(content, Sequence) or not content:
        raise DataError(
            f"{where}: its content is {content!r}, not text",
            remedy="map a column of text, or drop such rows with where:",
        )
    texts = []
    for number, part in enumerate(content, 1):
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind not in ("text", None) or not isinstance(part.get("text"), str):
            raise DataError(
                f"{where}: part {number} of its content is of type {kind!r}",
                remedy='only text is read: {"type": "text", "text": …}; drop such rows with where:',
            )
        others = [key for key, value in part.items() if key not in ("type", "text") and value is not None]
        if others:
            raise DataError(
                f"{where}: part {number} of its content has {', '.join(map(repr, others))}, not known",
                remedy='a part is {"type": "text", "text": …}',
            )
        texts.append(part["text"])
    return "".join(texts)


def _calls(given: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    calls = given.get("tool_calls") or []
    if isinstance(calls, str):
        calls = _parsed(calls, where, "tool_calls")
    if not isinstance(calls, Sequence):
        raise _no_call(where)
    calls = [_call(call, where) for call in calls]
    if given.get("function_call"):
        calls.append(_call(given["function_call"], where))
    return calls


def _call(call: Any, where: str) -> dict[str, Any]:
    """``{"type": "function", "function": {"name": …, "arguments": {…}}}``, an id where there is one."""
    if isinstance(call, str):
        call = _parsed(call, where, "a call")
    if not isinstance(call, Mapping):
        raise _no_call(where)
    function = call.get("function") or call
    arguments = function.get("arguments") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise _no_call(where)
    if isinstance(arguments, str):
        arguments = _parsed(arguments, where, "arguments") if arguments.strip() else {}
    if not isinstance(arguments, Mapping | None):
        raise _no_call(where)
    identity = {"id": call["id"]} if call.get("id") is not None else {}
    return {
        **identity,
        "type": "function",
        "function": {"name": function["name"], "arguments": dict(arguments or {})},
    }


def is_empty(turn: Message) -> bool:
    """Whether a turn says nothing; a tool may."""
    return not turn["content"].strip() and not turn.get("tool_calls") and turn["role"] != "tool"


def plain(turn: Message) -> tuple[str, ...]:
    """A turn for comparison: white space around the text does not count."""
    said = {key: value for key, value in turn.items() if key not in ("role", "content", "weight")}
    return turn["role"], turn["content"].strip(), *([json.dumps(said, sort_keys=True)] if said else [])


def check_text(value: Any, where: str) -> None:
    """Refuse lone surrogates: no tokenizer and no file takes them.

    Raises:
        DataError: one stands in a text inside ``value``.
    """
    if isinstance(value, str):
        if value.isascii():
            return
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{where}: character {error.start + 1} is half of a surrogate pair "
                f"(U+{ord(value[error.start]):04X}), which is no text",
                remedy=_without_surrogates(where),
            ) from None
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check_text(key, where)
            check_text(item, where)
    elif isinstance(value, list | tuple):
        for item in value:
            check_text(item, where)


def _kept(given: Mapping[str, Any]) -> str:
    """The filter that leaves a turn nothing but who says what."""
    names = ("role" if "role" in given else "from", "content" if "content" in given else "value")
    return f"keep({names[0]!r}, {names[1]!r})"


def _without_surrogates(where: str) -> str:
    if not where.isidentifier():
        return "mend the source: an escape such as \\ud83d stands there without its other half"
    made = f"{where} | regex_replace('[\\\\ud800-\\\\udfff]')"
    return (
        f'mend the source, or take it out: columns: {{{where}: "{made}"}}, with what {where} is mapped from'
    )


def _trained(given: Mapping[str, Any], role: str, where: str) -> bool:
    """Whether a turn's keys leave it to be trained on; without any, an assistant's is."""
    found = {key: given[key] for key in WEIGHTS if key in given}
    for key, value in found.items():
        if value not in (0, 1) or isinstance(value, str):
            raise DataError(
                f"{where}: {key} is {value!r}",
                remedy=f"a turn is trained (1, true) or not (0, false): map the column, or keep no weights: "
                f"{where.partition(':')[0]} | {_kept(given)}",
            )
    if len(set(map(float, found.values()))) > 1:
        raise DataError(f"{where}: {found} contradict each other", remedy="keep one of these keys")
    trained = all(found.values())
    if found and trained and role != "assistant":
        raise DataError(
            f"{where}: {next(iter(found))} asks to train the {role}'s turn",
            remedy="only the assistant's turns can be trained: leave it out, or set it to 0",
        )
    return trained or role != "assistant"


def _parsed(text: str, where: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(
            f"{where}: {what} is no JSON: {error}", remedy="mend it, or drop such rows with where:"
        ) from error


def _no_message(where: str) -> DataError:
    return DataError(f"{where} is not a message", remedy='a message is {"role": "user", "content": "text"}')


def _no_call(where: str) -> DataError:
    return DataError(
        f"{where}: tool_calls is no list of calls",
        remedy='a call is {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}',
    )
