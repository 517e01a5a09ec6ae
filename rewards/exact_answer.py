"""Exact final answer of a maths problem: 1 where it equals the column ``answer``, else 0.

The answer is looked for, in this order, in the last ``\\boxed{…}``, after the last ``####``, after
the last "Answer:" or "the answer is", and in a formula that ends the text; else it is the last
number. Plain numbers are compared exactly (currency signs, percent signs and thousands separators
aside); everything else goes to math-verify, which knows LaTeX and symbolic equality.
"""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

from math_verify import LatexExtractionConfig, parse, verify

from align.reward import Sample, reward

Extract = Literal["auto", "boxed", "hash", "answer", "formula", "number"]

_NUMBER = r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|-?\.\d+"
_LAST_NUMBER = re.compile(rf"(?:(?<!\w)-)?(?:{_NUMBER.replace('-?', '')})(?:/\d+)?\s*%?")
# A number that a phrase states ("18 dollars a day"), and not a piece of a formula ("2x", "n > 2", "S_2").
_COUNT = re.compile(
    rf"[^\d\\+*/^()<>≤≥≠∈|_\[{{-]*?(?P<number>(?:{_NUMBER})(?:\s*/\s*\d+)?\s*%?)"
    r"(?![\w({]|\s*(?:[-+*/^×÷=\\√π]|\((?![A-Za-z]{2})|[b-zB-Z](?![A-Za-z])|(?:sqrt|pi)\b)"
    r"|\s*(?:,|;|:|or|and)\s*\$?\d)"
)
_HASHES = re.compile(r"####[ \t]*([-+.\d$€£¥\\(].*)")  # a heading of that depth has words
_BRACES = re.compile(r"\\boxed\s*\{|\\.|[{}]")
_PLAIN = re.compile(rf"(?P<top>{_NUMBER})(?:/(?P<bottom>\d+))?(?P<percent>%?)")
_SIGNALS = re.compile(
    r"^[\s>*#]*(?:final\s+)?(?:answer|a)\b[\s*]*[:：]|\banswer\s*(?:is|=)\s*:?|答案\s*(?:是|为|[:：])",
    re.IGNORECASE | re.MULTILINE,
)
_NOISE = re.compile(r"\\[,!;: ]|\{,\}|\\?[$€£¥]|\s|\*\*|\\[()\[\]]")
_FONTS = re.compile(r"\\(?:text|math|operator)(?:bb|bf|cal|it|name|rm)?\s*(?:\{([^{}]*)\}|(?=[A-Z]))")
_BRACED = re.compile(r"([_^]|mod)\{(\w)\}")
_RATIO = re.compile(r"\d\s*:\s*\d")
_SIGNS = {"π": "\\pi", "∞": "\\infty", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "×": "\\times ", "−": "-"}
# "5 cm", "\\frac{1}{2} \\text{ m}^2"
_UNIT = re.compile(r"^(-?[\d.,/]+) (?!pi$)[a-z]{2,}$|(?<=[\d}])\s*\\(?:text|mathrm)\s*\{[^{}]*\}(?:\^\S+)?$")
_WITH_UNITS = LatexExtractionConfig().normalization_config
_WITHOUT_UNITS = replace(_WITH_UNITS, units=False)
_LONGEST = 300  # characters; a longer text is never an answer, and costs time
_SECONDS = 1.0  # of processor time for one comparison: a busy machine must not change a verdict

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of every odd answer, in full


@reward
def exact_answer(sample: Sample, extract: Extract = "auto") -> float | None:
    """1 where the final answer equals the column ``answer``, else 0; abstains where that is null."""
    truth = sample["answer"]
    if truth is None:
        return None
    found = final_answer(sample.completion, extract)
    return float(found is not None and same(stated(str(truth)), found))


def final_answer(text: str, extract: Extract = "auto") -> str | None:
    """The answer that a text states, or None."""
    steps = _STEPS.values() if extract == "auto" else [_STEPS[extract]]
    return next((found for step in steps if (found := step(text))), None)


def stated(truth: str) -> str:
    """The answer inside a reference: after ``####``, in ``\\boxed{}``, after "Answer:", else all of it.

    Raises:
        ValueError: that is too long to be an answer.
    """
    found = after_hash(truth) or boxed(truth) or after_signal(truth) or truth.strip()
    if len(found) > _LONGEST:
        raise ValueError(f"the column 'answer' holds {len(found)} characters; map the final answer to it")
    return found


def boxed(text: str) -> str | None:
    """Content of the last complete ``\\boxed{…}``; braces may nest."""
    opened: list[tuple[int, bool]] = []
    last: tuple[int, int] | None = None
    for token in _BRACES.finditer(text):
        if token[0] == "}":
            start, is_box = opened.pop() if opened else (0, False)
            if is_box and (last is None or start > last[0]):
                last = start, token.start()
        elif token[0].endswith("{") and token[0] != "\\{":
            opened.append((token.end(), token[0] != "{"))
    return text[slice(*last)].strip() if last else None


def after_hash(text: str) -> str | None:
    """The rest of the line after the last ``####`` (GSM8K)."""
    found = _HASHES.findall(text)
    return found[-1].strip() if found else None


def after_signal(text: str) -> str | None:
    """What follows the last "Answer:" or "answer is", to the end of the sentence."""
    ends = [signal.end() for signal in _SIGNALS.finditer(text)]
    line = _first_line(text[ends[-1] :]) if ends else None
    if line is None:
        return None
    return re.split(r"\.(?:\s|$)|。", line.strip("* "), maxsplit=1)[0].strip("* ") or None


def closing_formula(text: str) -> str | None:
    """The formula that ends a text, in ``$…$``, ``\\(…\\)`` or ``\\[…\\]``."""
    text = text.rstrip(" \n.*")
    for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        body = text.removesuffix(closing)
        if body != text and (found := body.rpartition(opening))[1]:
            return found[2].strip() or None
    return None


def last_number(text: str) -> str | None:
    """The last number of a text."""
    found = _LAST_NUMBER.findall(text)
    return found[-1] if found else None


def same(truth: str, found: str) -> bool:
    """Whether two answers are equal: as text, as numbers, or as mathematics."""
    if _squeezed(truth) == _squeezed(found):
        return True
    wanted, given = values(truth), values(found)
    if wanted and not given and (count := _COUNT.match(found.rpartition("=")[2])):
        given = values(count["number"])  # "18 dollars a day", "9 + 9 = 18"
    return bool(wanted & given) if wanted and given else _equivalent(truth, found)


def _squeezed(text: str) -> str:
    """Text without what means nothing: fonts, spaces, case, a full stop, emphasis, the size of a fraction."""
    text = _FONTS.sub(r"\1", text).replace("\\varnothing", "\\emptyset")
    text = re.sub(r"\s|\*\*|\\[,!;: ]|\\left|\\right|(?<=\\)[dt](?=frac)", "", text)
    return _BRACED.sub(r"\1\2", text).strip(".$").lower()


def values(text: str) -> set[Fraction]:
    """What a plain number may mean: 50% is 50 and 1/2. Empty for anything but a plain number."""
    match = _PLAIN.fullmatch(_NOISE.sub("", text).replace("−", "-").replace("\\%", "%").strip("+."))
    if match is None or len(match[0]) > _LONGEST or (match["bottom"] and not int(match["bottom"])):
        return set()
    value = Fraction(match["top"].replace(",", "")) / int(match["bottom"] or 1)
    return {value, value / 100} if match["percent"] else {value}


def _first_line(text: str) -> str | None:
    return next((line.strip() for line in text.splitlines() if line.strip()), None)


def _equivalent(truth: str, found: str) -> bool:
    # math-verify reads 3:1 as 3
    if len(found) > _LONGEST or bool(_RATIO.search(truth)) != bool(_RATIO.search(found)):
        return False
    wanted = list(_reference(truth))
    try:
        with _limited():
            return bool(verify(wanted, _mathematics(found, units=bool(values(truth))), timeout_seconds=None))
    except _TooLongError:
        return False


def _mathematics(text: str, *, units: bool) -> list[Any]:
    """SymPy's reading of an answer, and its text.

    Args:
        units: drop what may be a unit, also a letter: right beside a number, but 2ab is more than 2.
    """
    inner = text.strip().removeprefix("$").removesuffix("$").removeprefix("\\(").removesuffix("\\)")
    inner = re.sub(r"√\s*(\w+|\([^()]*\))", r"\\sqrt{\1}", inner)
    inner = "".join(_SIGNS.get(sign, sign) for sign in inner)
    inner = inner if units else _UNIT.sub(r"\1", inner)
    normalise = _WITH_UNITS if units else _WITHOUT_UNITS
    config = [LatexExtractionConfig(boxed_match_priority=0, normalization_config=normalise)]
    return list(parse(f"\\boxed{{{inner}}}", config, parsing_timeout=None))


@lru_cache(maxsize=1024)
def _reference(truth: str) -> tuple[Any, ...]:
    """The G completions of a prompt share their reference."""
    try:
        with _limited():
            return tuple(_mathematics(truth, units=bool(values(truth))))
    except _TooLongError:
        raise ValueError(f"column 'answer': {truth[:60]!r} takes more than {_SECONDS:g} s to read") from None


class _TooLongError(BaseException):  # passes the ``except Exception`` in the libraries
    pass


@contextmanager
def _limited() -> Iterator[None]:
    """Ends what takes more than ``_SECONDS`` of processor time. Main thread only, as signals are.

    The alarm repeats: Python swallows what is raised inside a finaliser or a callback of its collector.
    """

    def stop(*_: object) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


_STEPS: dict[str, Callable[[str], str | None]] = {
    "boxed": boxed,
    "hash": after_hash,
    "answer": after_signal,
    "formula": closing_formula,
    "number": last_number,
}
