"""What a row says about a question's options: their letters, their texts, and which of them are right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ONE = re.compile(r"[\"'(\[{<]*([A-Za-z])[.\"')\]}>]*")
_SEVERAL = re.compile(r"[\s,;、&()\[\]\"']+|\band\b|和|与")
_RUN = re.compile(r"(?<![A-Za-z])[A-J]{2,6}(?![A-Za-z])")
_SAID = re.compile(
    r"(?:\b(?:answer|choice|option) (?:is|would be)|\banswer:|答案[是为:：])\s*(.+)", re.IGNORECASE
)


def right_letters(truth: Any, texts: Mapping[str, str]) -> set[str]:
    """The letters of the right options.

    Args:
        truth: a letter, several ("ACD", "A, C", a list), the place of an option from 0, or its text.
        texts: text of each option by its letter, where the row has them.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(truth, Sequence) and not isinstance(truth, str) and truth:
        return {letter for one in truth for letter in right_letters(one, texts)}
    if isinstance(truth, int) and not isinstance(truth, bool) and 0 <= truth < len(texts):
        return {list(texts)[truth]}
    written = str(truth).strip()
    if found := _ONE.fullmatch(written):
        return {found[1].upper()}
    same = [letter for letter, text in texts.items() if _plain(text) == _plain(written)]
    if len(same) == 1:
        return {same[0]}
    letters = [part for part in _SEVERAL.split(written) if part]
    letters = list(written) if len(letters) == 1 and _RUN.fullmatch(written) else letters
    if letters and all(re.fullmatch("[A-Z]", letter) for letter in letters):
        return set(letters)
    raise ValueError(
        f"column 'answer' holds {truth!r}, which is no letter and no text of the column 'choices'"
    )


def option_texts(choices: Any) -> dict[str, str]:
    """The texts of a row's options by letter: of a list, a mapping from letters, or two lists, ``text`` and
    ``label``; empty for anything else."""
    if isinstance(choices, Mapping):
        texts, labels = choices.get("text"), choices.get("label")
        if isinstance(texts, Sequence) and isinstance(labels, Sequence) and len(texts) == len(labels):
            return {str(label).upper(): str(text) for label, text in zip(labels, texts, strict=True)}
        return {str(key).upper(): str(text) for key, text in choices.items() if len(str(key)) == 1}
    if isinstance(choices, Sequence) and not isinstance(choices, str):
        return {letter: str(text) for letter, text in zip(_LETTERS, choices, strict=False)}
    return {}


def apart(text: str) -> str:
    """The text with runs of letters in order taken apart ("ACD" is "A, C, D")."""

    def split(run: re.Match[str]) -> str:
        return ", ".join(run[0]) if list(run[0]) == sorted(set(run[0])) else run[0]

    return _RUN.sub(split, text)


def by_text(text: str, texts: Mapping[str, str]) -> str | None:
    """The letter of the option whose text is all that an answer says, at its end or after "the answer is"."""
    last = text.strip().rpartition("\n")[2]
    said = _SAID.search(last)
    stated = {_plain(last), _plain(said[1]) if said else ""}
    found = [letter for letter, option in texts.items() if _plain(option) and _plain(option) in stated]
    return found[0] if len(found) == 1 else None


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip(" \t\n.。*\"'`$")).casefold()
