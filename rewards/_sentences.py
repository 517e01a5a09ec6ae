"""Counts sentences and capital words of English text, by rule: no model, no download."""

from __future__ import annotations

import re

_ABBREVIATIONS = re.compile(
    r"adj|adm|apr|assn|assoc|aug|ave|bldg|blvd|capt|cf|co|col|corp|dec|dept|dr|e\.g|ed|est|etc|feb|fig|gen|gov"
    r"|hon|hr|i\.e|inc|jan|jr|lt|ltd|maj|mar|messrs|mr|mrs|ms|mt|nov|oct|p\.m|a\.m|pp|prof|rep|rev|sen|sept|sgt"
    r"|sr|st|u\.k|u\.s|univ|v|vol|vs"
)
_LONGEST = 12  # characters before a full stop that can make an abbreviation
# A run of end marks and what closes around it, before white space. Possessive, so linear in any text.
_END = re.compile(r"(?<![.!?])([.!?]++)([\"'”’)\]}*_]*+)(?:\s++|$)")
_CONTRACTION = re.compile(r"(n['’]t|['’](?:s|m|d|ll|re|ve))\b", re.IGNORECASE)
_SEPARATORS = re.compile(r"[\s;@#$%&?!:,()\[\]{}<>\"]+|--|\.\.\.")


def sentences(text: str) -> list[str]:
    """The sentences of a text. Only ``.``, ``!`` and ``?`` end one: a line break does not."""
    found, start = [], 0
    for end in _END.finditer(text):
        mark, closing = end.groups()
        capital_follows = text[end.end() : end.end() + 1].isupper()
        if mark == "." and not closing:
            words = text[max(start, end.start() - _LONGEST) : end.start()].split()
            word = words[-1].lstrip("\"'“‘([{*_").lower() if words else ""
            if _ABBREVIATIONS.fullmatch(word) or (len(word) == 1 and word.isalpha() and capital_follows):
                continue
        if mark.startswith("..") and not capital_follows:
            continue  # an ellipsis inside a sentence
        found.append(text[start : end.end()].strip())
        start = end.end()
    rest = text[start:].strip()
    return [*found, rest] if rest else found


def capital_words(text: str) -> int:
    """Number of words without a small letter; "I'm" is the two words "I" and "'m"."""
    return sum(word.isupper() for word in _SEPARATORS.split(_CONTRACTION.sub(r" \1", text)))
