"""From a row's columns to a preference pair or a scored conversation."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from align.dataset.messages import _check, _turns, _with_system, conversation_of
from align.errors import DataError
from align.types import Message

Noise = Literal["identical", "differing", "empty", "unscored", "tied"]
"""Why a row says nothing: both sides are the same; they answer different prompts; a turn has no text; of
answers that are to be paired: one has no score; those to one prompt do not differ in theirs."""
NOISE: tuple[Noise, ...] = ("identical", "differing", "empty", "unscored", "tied")
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


def read_row(row: Mapping[str, Any], loss: Loss, *, system: str | None = None) -> Pair | Point | Noise:
    """What a row is for a loss, or why it says nothing.

    Args:
        row: its columns.
        loss: ``rm.loss``.
        system: system message for conversations that have none.

    Raises:
        DataError: as :func:`pair_of` and :func:`point_of`; roles that do not take turns; no answer at
            the end.
    """
    if loss == "bradley_terry":
        pair = pair_of(row, system=system)
        noise = noise_of(pair)
        if noise is None:
            for side in (pair.chosen, pair.rejected):
                _check_answered(side)
        return noise or pair
    for column in ("messages", "prompt", "completion"):
        turns = [] if row.get(column) is None else _turns(row[column], column, "")
        if any(not turn["content"].strip() for turn in turns):
            return "empty"
    return point_of(row, binary=loss == "binary", system=system)


def pair_of(row: Mapping[str, Any], *, system: str | None = None) -> Pair:
    """The pair in a row: ``chosen``, ``rejected``, optional ``margin``.

    Beside a ``prompt`` (text or messages), a side is the answer: text, or messages from the assistant's
    turn on. A side whose messages start with a user or system turn is a whole conversation.

    Args:
        row: its columns.
        system: system message for conversations that have none.

    Raises:
        DataError: columns are missing; a side is text without a prompt; a margin is no number.
    """
    chosen, rejected = (tuple(_with_system(_side(row, name), system)) for name in ("chosen", "rejected"))
    return Pair(chosen, rejected, _number(row.get("margin") or 0.0, "margin"))


def _side(row: Mapping[str, Any], column: str) -> list[Message]:
    if row.get(column) is None:
        raise DataError(
            f"no {column} in the columns {', '.join(map(str, row))}",
            remedy=f"make it from another column, for example columns: {{{column}: answer}}; "
            "scored conversations need rm.loss=regression or binary",
        )
    turns = _turns(row[column], column, "assistant")
    if turns and turns[0]["role"] != "assistant":
        return turns
    if row.get("prompt") is None:
        raise DataError(
            f"{column} is an answer, and there is no prompt to it",
            remedy="map a column to prompt; for transcripts of the form 'Human: … Assistant: …', "
            f"columns: {{{column}: {column} | transcript}}",
        )
    return [*_turns(row["prompt"], "prompt", "user"), *turns]


def point_of(row: Mapping[str, Any], *, binary: bool, system: str | None = None) -> Point:
    """The scored conversation in a row: the columns of SFT (``conversation_of``) and ``score``.

    Raises:
        DataError: columns are missing; the conversation is malformed; the score is no number, or,
            with ``binary``, neither 0 nor 1.
    """
    messages = conversation_of(row, system=system)
    if row.get("score") is None:
        raise DataError(
            f"no score in the columns {', '.join(map(str, row))}",
            remedy="make it from another column, for example columns: {score: rating}; "
            "pairs need rm.loss=bradley_terry",
        )
    score = _number(row["score"], "score")
    if binary and score not in {0.0, 1.0}:
        raise DataError(
            f"the score {row['score']!r} is neither 0 nor 1", remedy="map it, or set rm.loss=regression"
        )
    return Point(messages, score)


def noise_of(pair: Pair) -> Noise | None:
    """Why a pair says nothing; None for one that does."""
    chosen, rejected = pair.chosen, pair.rejected
    if any(not turn["content"].strip() for turn in (*chosen, *rejected)):
        return "empty"
    if _plain(chosen[:-1]) != _plain(rejected[:-1]):
        return "differing"
    return "identical" if _plain(chosen[-1:]) == _plain(rejected[-1:]) else None


def _plain(turns: Sequence[Message]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"].strip()) for turn in turns]


def group_of(messages: Sequence[Message]) -> int:
    """63 bits of a digest of the first user turn.

    The first one, since dialogues that were judged turn by turn come as several rows of growing length.
    """
    opening = next((turn["content"].strip() for turn in messages if turn["role"] == "user"), "")
    return int.from_bytes(hashlib.sha256(opening.encode()).digest()[:8], "big") >> 1


def is_held_out(group: int, fraction: float) -> bool:
    """Whether a prompt is held out: it depends on nothing else, so it is so in every run."""
    return group < fraction * 2**63


def _check_answered(messages: Sequence[Message]) -> None:
    _check(messages)
    if messages[-1]["role"] != "assistant":
        raise DataError(
            f"the conversation ends with a turn of {messages[-1]['role']!r}, so there is nothing to score",
            remedy="end every conversation with an assistant turn",
        )


def _number(value: Any, column: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{column} is {value!r}, not a number", remedy=f"map a number to {column}")
    return number
