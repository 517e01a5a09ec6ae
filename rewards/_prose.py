"""What a text without a mark ends on: its last formula, expression or number."""

from __future__ import annotations

import re

from ._numbers import NUMBER, narrow, plain
from ._numerals import SCALE

FORMULA = re.compile(
    r"\$\$(.+?)\$\$|(?<!\\)\$((?:\\.|[^$\\\n])+)(?<!\\)\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL
)
ASIDE = re.compile(
    r",\s+(?=(?!and\b|or\b|where\b|maybe\b|perhaps\b|possibly\b|probably\b)[A-Za-z]{2,})|"
    r"，(?=[^\d\\$])|\s+(?:because|since|which|as we)\b"
)
LAST_WORD = re.compile(
    r"\b(?:is|are|(?<!or )equals?|be|was|get|gives?|obtain)\b(?!\s+not)[:\s]+|[是为]\s*[:：]?\s*"
)

_NUMBER = re.compile(
    rf"(?:(?:(?<![\w.)\]}}])[-−]|\b(?:minus|negative)\s+|负)\s*)?(?<![\d.])(?:[$€£¥]\s*)?(?<![A-Za-z_^\d.])"
    rf"(?:{NUMBER})(?:,\d{{1,2}}(?![\d,]))?(?:[eE][-+]?\d+|\s*/\s*\d+(?:\.\d+)?)?(?:\s*(?:{SCALE}))?(?:\s*\\?%)?",
    re.IGNORECASE,
)
_LIST = re.compile(rf"-?(?:{NUMBER})(?:\s*,\s*-?(?:{NUMBER}))*\s*,?\s*(?:and|or|和|或)\s*-?(?:{NUMBER})")
_CHOICE = re.compile(rf"-?(?:{NUMBER})\s*(?:or|或|或者)\s*\S*$")
_DENIED = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|rather than|instead of|except|anything but|other than|"
    r"no (?:\w+ )?solutions?)|"
    r"(?:\bif|\bsuppose|\bassum(?:e|ing)|\bdoubt)(?: that)? "
    r"(?:it|that|this|the (?:answer|value|result))(?: (?:were|was|is)|['’]s)|"
    r"n['’]t|≠|不是|不等于|不会是|不可能是)\s*"
    r"(?:(?:be|equals?|equal|the|to|possibly|actually|for|if|when|where|at|with|quite|"
    r"\$?[A-Za-z] ?=)\s*)*\$*$",
    re.IGNORECASE,
)
_MATHS = re.compile(
    r"\\[A-Za-z]|[\^√π]|\d\s*[*+/!]|\*\*|\b(?:pi|sqrt)\b|[A-Za-z]\s*[-+*/]\s*\d|\d[A-Za-z]{1,2}\b|\d\s*\("
)
_KNOWN = re.compile(
    r"\\[A-Za-z]+(?:\{[A-Za-z ]+\})?|(?<![A-Za-z])(?:sqrt|sin|cos|tan|log|ln|exp|pi|and|or)(?![A-Za-z])"
)
_SENTENCE_END = re.compile(r"(?:(?<=[.。?])|(?<=[^\d]!))\s+|\n")
_SHORT = 60  # characters; a text no longer than that, in one line, may be a bare answer
_LAST = 4000  # characters of a text that are looked at


def closing_formula(text: str) -> str | None:
    """The formula that ends a text, in ``$…$``, ``\\(…\\)`` or ``\\[…\\]``."""
    text = text.rstrip(" \n.*。，,")
    for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        body = text.removesuffix(closing)
        if body != text and (found := body.rpartition(opening))[1]:
            if _DENIED.search(found[0][-60:]):
                return None
            return found[2].strip() or None
    return None


def last_number(text: str) -> str | None:
    """The last number of a text that is not denied ("not 71")."""
    found = _last_number(narrow(text[-_LAST:]))
    return found[0].strip() if found else None


def last_value(text: str) -> str | None:
    """A short text as it stands; else the last formula, expression or number of a longer one."""
    text = narrow(text.strip())
    if len(text) <= _SHORT and "\n" not in text and _bare(text):
        tail = None if plain(text) else _tail(text)
        return tail if tail and plain(tail) else ASIDE.split(text, maxsplit=1)[0] or None
    text = text[-_LAST:]
    number = _last_number(text)
    formulas = [
        found
        for found in FORMULA.finditer(text)
        if re.search(r"[\d\\=<>]", found[0][1:]) and not _DENIED.search(text[: found.start()][-60:])
    ]
    if formulas and (number is None or formulas[-1].end() > number.start()):
        return next(group for group in formulas[-1].groups() if group).strip()
    sentence = _SENTENCE_END.split(text.rstrip())[-1]
    stated = _tail(sentence)
    if stated and (plain(stated) or _LIST.fullmatch(stated) or (re.search(r"\d", stated) and _bare(stated))):
        return stated
    expression = _expression(sentence)
    if expression and (_MATHS.search(expression) if number else re.search(r"[\\π√]", expression)):
        return expression
    if number is None:
        return None
    choice = _CHOICE.search(text[: number.end()])  # "41 or 42" is no answer
    return (choice or number)[0].strip()


def _last_number(text: str) -> re.Match[str] | None:
    numbers = reversed(list(_NUMBER.finditer(text)))
    return next((found for found in numbers if not _DENIED.search(text[: found.start()][-40:])), None)


def _tail(sentence: str) -> str | None:
    """What follows the last "is" of a sentence, unless that is denied."""
    words = list(LAST_WORD.finditer(sentence))
    if not words or _DENIED.search(sentence[: words[-1].end()][-40:]):
        return None
    return sentence[words[-1].end() :].strip(" *").rstrip(" .!*。") or None


def _bare(text: str) -> bool:
    """Whether a short text is the answer and nothing more: a number, a formula, or words without a number."""
    if plain(text) or not re.search(r"\d", text):
        return True
    rest = _KNOWN.sub(" ", text)
    return not re.search(r"[A-Za-z]{2,}" if " " in text else r"[A-Za-z]{3,}", rest)


def _expression(sentence: str) -> str | None:
    """The last run of words of a sentence that looks like mathematics."""
    words = sentence.split()
    maths = [place for place, word in enumerate(words) if re.search(r"\d|\\[A-Za-z]|[π√]|\bpi\b", word)]
    if not maths:
        return None
    first = last = maths[-1]
    while first and _belongs(words[first - 1], words[first]):
        first -= 1
    while last + 1 < len(words) and re.match(r"[-+*/^=!)]|\\|\d", words[last + 1]):
        last += 1
        while last + 1 < len(words) and re.fullmatch(r"[-+*/^=]", words[last]):
            last += 1
    return " ".join(words[first : last + 1]).strip(".,;:?*。，")


def _belongs(word: str, after: str) -> bool:
    """Whether a word belongs to the expression that starts with the word after it."""
    if word.endswith((",", ";", ":", ".")) or word in {"a", "A", "I"}:
        return False
    if re.fullmatch(r"[-+*/^=(<>≤≥×÷·]+", word) or word.endswith("\\"):
        return True
    return bool(re.match(r"[-+*/^=)<>≤≥×÷·]", after) and re.match(r"[\d(\\]|[A-Za-z](?![A-Za-z])", word))
