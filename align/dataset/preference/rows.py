"""From a row's columns to a preference pair or a scored conversation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from align.dataset.messages.beside import check_beside, tools_column, tools_of
from align.dataset.messages.read import (
    check,
    conversation_of,
    form_of,
    system_of,
    with_system,
    without_weights,
)
from align.dataset.messages.said import Said, said
from align.dataset.messages.turns import is_empty, plain, turns_of
from align.dataset.preference.same_prompt import check_same_prompt
from align.errors import DataError
from align.types import Message

Noise = Literal["identical", "differing", "empty", "unscored", "tied"]
"""Why a row says nothing: both sides are the same; they answer different prompts; a turn has no text; of
answers that are to be paired: one has no score; those to one prompt do not differ in theirs."""
NOISE: tuple[Noise, ...] = ("identical", "differing", "empty", "unscored", "tied")
_LARGEST = 1e9
Conversation = tuple[Message, ...]
Loss = Literal["bradley_terry", "regression", "binary"]


class Pair(NamedTuple):
    """Two whole conversations, the better one first."""

    chosen: Conversation
    rejected: Conversation
    margin: float
    """By how much the scores should differ at least; 0 where the data does not say."""


class Point(NamedTuple):
    """A whole conversation and its score."""

    messages: Conversation
    score: float


def read_row(
    row: Mapping[str, Any], loss: Loss, *, system: str | None = None, mapped: Collection[str] = ()
) -> Pair | Point | Noise:
    """What a row is for a loss, or why it says nothing.

    Args:
        row: its columns.
        loss: ``rm.loss``.
        system: system message for conversations that have none.
        mapped: columns that the recipe itself makes; they go before all others.

    Raises:
        DataError: as :func:`pair_of` and :func:`point_of`; roles that do not take turns; no answer at
            the end; functions to call, which a reward model does not read.
    """
    if tools_of(row) is not None:
        column = tools_column(row)
        raise DataError(
            f"the row has {column}, and a reward model reads conversations alone",
            remedy=f"have none: columns: {{{column}: none}}",
        )
    if loss == "bradley_terry":
        pair = pair_of(row, system=system, mapped=mapped)
        noise = noise_of(pair)
        if noise is None:
            for side, name in ((pair.chosen, "chosen"), (pair.rejected, "rejected")):
                _check_answered(side, said(row, ("prompt", name), mapped))
        return noise or pair
    for column in form_of(row, mapped):
        value = row.get(column) if column not in ("instruction", "input", "output") else None
        if value is not None and any(map(is_empty, turns_of(value, column, "user"))):
            return "empty"
    return point_of(row, binary=loss == "binary", system=system, mapped=mapped)


def pair_of(row: Mapping[str, Any], *, system: str | None = None, mapped: Collection[str] = ()) -> Pair:
    """The pair in a row: ``chosen``, ``rejected``, optional ``margin``.

    Beside a ``prompt`` (text or messages), a side is the answer: text, or messages from the assistant's
    turn on. A side whose messages start with a user or system turn is a whole conversation.

    Args:
        row: its columns.
        system: system message for conversations that have none.
        mapped: columns that the recipe itself makes.

    Raises:
        DataError: columns are missing; a side is text without a prompt, or a whole conversation beside a
            prompt that the recipe maps or that is another than its own; a margin is no number, or too large.
    """
    own = system_of(row, system)
    sides = [_side(row, name, mapped) for name in ("chosen", "rejected")]
    for side, name in zip(sides, ("chosen", "rejected"), strict=True):
        check_beside(row, side, ("prompt", name), mapped=mapped)
    chosen, rejected = (tuple(without_weights(with_system(side, own))) for side in sides)
    margin = row.get("margin")
    return Pair(chosen, rejected, 0.0 if margin in (None, "") else _trainable(margin, "margin"))


def _side(row: Mapping[str, Any], column: str, mapped: Collection[str]) -> list[Message]:
    if row.get(column) is None:
        raise DataError(
            f"no {column} in the columns {', '.join(map(str, row))}",
            remedy=f"make it from another column, for example columns: {{{column}: answer}}; "
            "scored conversations need rm.loss=regression or binary",
        )
    turns = turns_of(row[column], column, "assistant")
    if turns and turns[0]["role"] != "assistant":
        if row.get("prompt") is None:
            return turns
        if "prompt" in mapped:
            raise DataError(
                f"columns maps prompt, and {column} is a whole conversation",
                remedy=f"map no prompt, or the answer alone: columns: {{{column}: '{column}[-1:]'}}",
            )
        check_same_prompt(row["prompt"], turns, column)
        return turns
    if row.get("prompt") is None:
        raise DataError(
            f"{column} is an answer, and there is no prompt to it",
            remedy="map a column to prompt; for transcripts of the form 'Human: … Assistant: …', "
            f"columns: {{{column}: {column} | transcript}}",
        )
    return [*turns_of(row["prompt"], "prompt", "user"), *turns]


def point_of(
    row: Mapping[str, Any], *, binary: bool, system: str | None = None, mapped: Collection[str] = ()
) -> Point:
    """The scored conversation in a row: the columns of SFT (``conversation_of``) and ``score``.

    Raises:
        DataError: columns are missing; the conversation is malformed; the score is no number, or,
            with ``binary``, neither 0 nor 1.
    """
    messages = tuple(without_weights(conversation_of(row, system=system, mapped=mapped)))
    if row.get("score") is None:
        raise DataError(
            f"no score in the columns {', '.join(map(str, row))}",
            remedy="make it from another column, for example columns: {score: rating}; "
            "pairs need rm.loss=bradley_terry",
        )
    score = _trainable(row["score"], "score")
    if binary and score not in {0.0, 1.0}:
        raise DataError(
            f"the score {row['score']!r} is neither 0 nor 1", remedy="map it, or set rm.loss=regression"
        )
    return Point(messages, score)


def noise_of(pair: Pair) -> Noise | None:
    """Why a pair says nothing; None for one that does."""
    chosen, rejected = pair.chosen, pair.rejected
    if any(map(is_empty, (*chosen, *rejected))):
        return "empty"
    if [*map(plain, chosen[:-1])] != [*map(plain, rejected[:-1])]:
        return "differing"
    return "identical" if [*map(plain, chosen[-1:])] == [*map(plain, rejected[-1:])] else None


def group_of(messages: Sequence[Message]) -> int:
    """63 bits of a digest of the first user turn.

    The first one, since dialogues that were judged turn by turn come as several rows of growing length.
    """
    opening = next((turn["content"].strip() for turn in messages if turn["role"] == "user"), "")
    return int.from_bytes(hashlib.sha256(opening.encode()).digest()[:8], "big") >> 1


def is_held_out(group: int, fraction: float) -> bool:
    """Whether a prompt is held out: it depends on nothing else, so it is so in every run."""
    return group < fraction * 2**63


def columns_of(found: Pair | Point, row: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The columns that each side of what was read came from, those of messages first."""
    if isinstance(found, Point):
        return [tuple(row)]
    return [("chosen", "prompt"), ("rejected", "prompt")]


def _check_answered(messages: Sequence[Message], source: Said) -> None:
    check(messages, source)
    if messages[-1]["role"] != "assistant":
        raise DataError(
            f"the conversation ends with a turn of {messages[-1]['role']!r}, so there is nothing to score",
            remedy="end every conversation with an assistant turn",
        )


def _number(value: Any, column: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{column} is {value!r}, not a number", remedy=f"map a number to {column}")
    return number


def _trainable(value: Any, column: str) -> float:
    """A number whose square, added up over a batch, is still one in float32."""
    number = _number(value, column)
    if abs(number) > _LARGEST:
        raise DataError(
            f"{column} is {value!r}, more than training computes with ({_LARGEST:g})",
            remedy=f"scale it: columns: {{{column}: {column} / 1000}}, or drop such rows with where:",
        )
    return number
