"""Exact final answer of a maths problem: 1 where it equals the column ``answer``, else 0.

Where the answer stands is in ``_final_answer``, how numbers are written in ``_numbers``. Plain numbers are
compared exactly, units and signs of currency aside; text is compared as text; everything else goes to
math-verify, which knows LaTeX and symbolic equality (``_mathematics``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

from align.reward import Sample, reward

from ._claims import at_equals, parts, qualified
from ._final_answer import STEPS, marked
from ._mathematics import LONGEST, NEAR, equivalent
from ._numbers import NUMBER, Plain, narrow, plain, tidy
from ._numerals import SCALE, last_chinese
from ._quantities import same_amount
from ._units import clash

Extract = Literal["auto", "boxed", "hash", "answer", "formula", "number"]

# A number that a phrase states ("18 dollars a day"), and not a piece of a formula ("2x", "n > 2", "S_2").
_COUNT = re.compile(
    r"(?:(?!\b(?:not|except|minus|negative|than)\b|n['’]t\b|不)[^\d\\+*/^()<>≤≥≠∈√∛|_\[{.-])*?"
    rf"(?P<number>[$€£¥]?-?(?:{NUMBER})(?![.,]?\d)(?:\s*/\s*\d+)?(?:\s*(?:{SCALE}))?\s*%?)"
    r"(?![A-Za-z\d_({!\\]|\s*(?:[-+*/^×÷=<>≤≥\\√π!]|\((?![A-Za-z]{2})|[b-zB-Z](?![A-Za-z])|(?:sqrt|pi)\b)"
    r"|\s*(?:,|;|:|or|and|to)\s*\$?\d|\s*\d)",
    re.IGNORECASE,
)
_COMPOSITE = re.compile(
    r"[A-Za-z}]\s*[-+*/^]|[-+*/^]\s*[A-Za-z\\]|\d[A-Za-z]|\\[ct][di]|\b[A-Z]{2}"
)  # x^2 + 1 = 0 states no value
_FONTS = re.compile(
    r"\\(?:text|math|operator)(?:bb|bf|cal|it|name|normal|rm)?\s*(?:\{([^{}]*)\}|(?=[A-Z]))|\\mbox\{([^{}]*)\}"
)
_BLANKS = re.compile(
    r"\s+(?=[^\d\s])|(?<=\D)\s+|^\*\*|\*\*$|\\!|\\[,;: ](?!\d)|(?<!\d)\\[,;: ]|"
    r"\\left|\\right|(?<=\\)[dt](?=frac)"
)
_NOTHING = re.compile(r"(?:there(?:is|are|exists?)|ithas|wehave|has)?nosolutions?", re.IGNORECASE)
_BOUND = re.compile(r"[<>≤≥]|\\(?:le|ge|leq|geq|lt|gt)(?![a-z])")
_OPTION = re.compile(
    r"(?:\\(?:textbf|text|mathrm|mathbf)\s*\{\s*)?\(\s*(?:\\text\s*\{)?([A-J])\}?\s*\)\s*\}?"
    r"(?:\\[ ,;]|\\quad|[\s:.])\s*(\S.*)"
)  # (A) 5
_PAIR = re.compile(r"[\s$]*\d,\d[\s$]*")
_BRACED = re.compile(r"([_^]|mod)\{(\w)\}")


@reward
def exact_answer(sample: Sample, extract: Extract = "auto") -> float | None:
    """1 where the final answer equals the column ``answer``, else 0; abstains where that is null."""
    truth = sample["answer"]
    if truth is None:
        return None
    found = STEPS[extract](sample.completion)
    if found is None:
        return 0.0
    wanted = [_stated(each) for each in references(truth)]
    return float(any(same(each, found) or _says_only(sample.completion, each) for each in wanted))


def references(truth: Any) -> list[str]:
    """The references of a row: of a list each counts, and of a mapping the one under a usual name.

    Raises:
        ValueError: a mapping names none, or a list is empty.
    """
    if isinstance(truth, Mapping):
        names = [name for name in _USUAL if truth.get(name) is not None]
        if not names:
            raise ValueError(
                f"the column 'answer' is a mapping without {' or '.join(_USUAL)}; map one text to it"
            )
        return references(truth[names[0]])
    if isinstance(truth, Sequence) and not isinstance(truth, str):
        if not truth:
            raise ValueError("the column 'answer' is an empty list; map the final answer to it")
        return [each for one in truth for each in references(one)]
    return [str(truth)]


_USUAL = ("answer", "final_answer", "ground_truth", "target", "value", "solution")


def _says_only(text: str, truth: str) -> bool:
    """Whether a text is the reference and nothing more ("March 3")."""
    return len(text) <= LONGEST and _squeezed(text.strip()) == _squeezed(truth)


def stated(truth: str) -> str:
    """The answer inside a reference: in ``\\boxed{}``, after ``####``, after "Answer:", else all of it.

    Raises:
        ValueError: that is too long to be an answer.
    """
    found = marked(truth) or truth.strip()
    if len(found) > LONGEST:
        raise ValueError(f"the column 'answer' holds {len(found)} characters; map the final answer to it")
    return found


_stated = lru_cache(maxsize=1024)(stated)  # the G completions of a prompt share their reference
_read = lru_cache(maxsize=4096)(plain)


def same(truth: str, found: str) -> bool:
    """Whether two answers are equal: as text, as numbers, or as mathematics."""
    amounts = same_amount(truth, found)
    if amounts is not None:
        return amounts
    option = _OPTION.fullmatch(found) if not _OPTION.fullmatch(truth) else None
    if option:  # (A) 5
        return truth == option[1] or (not re.fullmatch(r"[A-J]", truth) and same(truth, option[2]))
    wanted = _read(truth)
    if wanted and _BOUND.search(found):
        return False
    if wanted and not (found.isdigit() and found.isascii()) and _several(found):
        return False
    if len(found) > LONGEST:  # only a long sentence can be right: the number that it starts with
        given = _counted(found) if wanted else None
        return bool(wanted and given and _same_number(wanted, given))
    if _squeezed(truth) == _squeezed(found):
        return True
    given = (_read(found) or _counted(found)) if wanted else None
    # 1,2 is a number only against one with a point
    if (
        wanted
        and given
        and (not wanted.listed or (_decimal(given) and not _PAIR.fullmatch(truth)))
        and (not given.listed or _decimal(wanted))
    ):
        return _same_number(wanted, given)
    return equivalent(truth, found)


def _several(text: str) -> bool:
    """Whether a text states more than a number: several values, a false equation, "half of 10"."""
    if plain(text):
        return False
    text = narrow(text)
    left, right = at_equals(text)
    count = _COUNT.match(right)
    if qualified(right[: count.end("number") + 60] if count else right[:LONGEST]):
        return True
    if not left:
        return False
    pieces = parts(text[:LONGEST])
    values = [plain(at_equals(piece)[1]) for piece in pieces]
    stated = {
        read.value if read else None
        for piece, read in zip(pieces, values, strict=True)
        if read or "=" in piece
    }
    if len(pieces) > 1 and len(stated) > 1:
        return True
    sides = [plain(side) for side in pieces[-1].split("=")] if pieces else []
    return any(one and other and _differ(one, other) for one, other in pairwise(sides))


def _decimal(number: Plain) -> bool:
    return number.point and not number.listed


def _differ(one: Plain, other: Plain) -> bool:
    """Whether an equation of two numbers is false, and not by a unit or by rounding."""
    if one.unit or other.unit or one.values & other.values:
        return False
    exact = not (one.point or other.point)
    return exact or abs(one.value - other.value) * 50 > max(abs(one.value), abs(other.value))


def _counted(text: str) -> Plain | None:
    """The number that a phrase or a calculation comes to: "18 dollars a day", "9 + 9 = 18"."""
    left, right = at_equals(tidy(text))
    if right.strip(" $.") == "0" and _COMPOSITE.search(left):
        return None
    count = _COUNT.match(right)
    chinese = None if count or right.isascii() else last_chinese(right)
    return plain(right) or (plain(count["number"]) if count else plain(chinese) if chinese else None)


def _same_number(wanted: Plain, given: Plain) -> bool:
    if clash(wanted.unit, given.unit):
        return False
    if wanted.values & given.values:
        return True
    # 0.333333 for 1/3: a decimal can only be near what has no end
    gap = abs(wanted.value - given.value)
    near = gap <= NEAR.p * max(abs(wanted.value), abs(given.value)) / NEAR.q
    return near and wanted.point != given.point and (wanted.endless or given.endless)


@lru_cache(maxsize=4096)
def _squeezed(text: str) -> str:
    """Text without what means nothing: fonts, blanks, full stop, emphasis, size of fractions, case."""
    if text.isdigit():
        return text
    words = not re.search(r"\d|[=^_]|\\(?!text|math)", text) and re.search(r"[A-Za-z]{2}", text)
    text = _FONTS.sub(lambda found: found[1] or found[2] or "", text).replace("\\varnothing", "\\emptyset")
    text = _BRACED.sub(r"\1\2", _BLANKS.sub("", text)).strip("$ ").rstrip(".$")
    text = text.removeprefix("\\(").removesuffix("\\)").strip("$ ").rstrip(".")
    text = _NOTHING.sub("no solution", text) if words else text
    return text.lower() if words else text
