"""Whether two answers are the same mathematics: math-verify's reading, compared exactly or relatively."""

from __future__ import annotations

import logging
import math
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, Eq, Expr, Float, I, MatrixBase, Pow, Rational, factorial, factorial2

from ._numbers import endless, tidy

SECONDS = 1.0  # of processor time for one comparison: a busy machine must not change a verdict
LONGEST = 300  # characters; a longer text is never an answer, and costs time
_DIGITS = 20_000  # of the largest integer that is worked out
NEAR = Rational(101, 10**8)  # how far a rounded decimal may be, of the value: 0.333333 is 1/3
_SAME = Rational(1, 10**100)  # how far two writings of a number may be, in 120 digits

_CONFIG = LatexExtractionConfig()
_NORMAL = replace(_CONFIG.normalization_config, units=False)
_READING = [replace(_CONFIG, boxed_match_priority=0, normalization_config=_NORMAL)]

# How an answer is written as LaTeX that math-verify reads
_SIGNS = {
    "π": "\\pi ", "∞": "\\infty ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "×": "\\times ", "·": "\\cdot ",
    "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "±": "\\pm ", "∅": "\\emptyset ", "θ": "\\theta ",
    "°": "^\\circ ", "、": ",", "或": " or ", "和": " and ",
}  # fmt: skip
_SIGN = re.compile("|".join(_SIGNS))
_NAME = re.compile(r"(?<![\\A-Za-z])(pi|infinity|theta|alpha|beta|sin|cos|tan|log|ln|exp)(?![A-Za-z])")
_ROOT = re.compile(r"(?<![\\A-Za-z])(?:sqrt|√)\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+|[A-Za-z](?![A-Za-z])))")
_SCIENTIFIC = re.compile(r"(?<![A-Za-z\d.])(\d+(?:\.\d+)?)[eE]([-+]?\d{1,4})(?![\w.])")
_GLUED_OR = re.compile(r"(?<=[\d)}])\s*(?:or|and)\s*(?=[A-Z\d(\\])")
_SIGNED_POWER = re.compile(r"\^\s*([-+](?:\d+(?:\.\d+)?(?![\d.])|[A-Za-z]))")
_MIXED = re.compile(r"(?<![\w.}^\\])(\d+)\s+(\d+)/(\d+)(?![\d.])")
# latex2sympy adds a number and a bracketed fraction, as in a mixed number; they are a product
_PRODUCT = re.compile(r"(?<![\w}^\\.])(\d+(?:\.\d+)?)\s*\((?=\s*[-+]?\s*\\frac)")
_UNIT = re.compile(
    r"\s*\\(?:text|mathrm)\s*\{(?![^{}]*\b(?:or|and|if|for|is|mod|not|where|with)\b)[^{}]*\}"
    r"(?:\s*\^\s*\{?\d\}?)?\s*$|(?<=[\d}])\s*\^\s*\{?\s*\\circ\s*\}?\s*$|"
    r"(?<=[\d}])\s+(?!(?:pi|sqrt|sin|cos|tan|log|ln|exp|or|and|mod)\b)[a-z]{2,}(?:\s[a-z]+)*$"
)

# What math-verify misreads: 1 2 as 3, 3:1 as 3, 12:30 as 2/5, 204_5 as 204, \Delta as \delta, dog as god
_COMMAND = re.compile(r"\\[A-Za-z]+|[&\\]{1,2}")
_APART = re.compile(r"(?<![\d.,_^}])\d+(?:\.\d+)?\s+\d(?![\d,]*\s*/)|\d\s*/\s*\d+\s+\d")
_RATIO = re.compile(r"\d\s*:\s*\d")
_CLOCK = re.compile(r"\b\d{1,2}:\d\d\b")
_BASE = re.compile(r"(?<![A-Za-z\d}])\d+\s*_\s*\{?\s*(\d+)\s*\}?")
_DATE = re.compile(r"(?<![\d.])(\d{4})\s?[-/]\s?0?(\d{1,2})\s?[-/]\s?0?(\d{1,2})(?![\d.])")
_PRIMES = re.compile(r"[A-Za-z)](?:'+|\^\s*\{?\s*(?:\\prime\s*)+\}?)")
_DIRECTED = re.compile(
    r"(?:\\(?:overrightarrow|vec|overset\{\\to\})\s*\{?\s*([A-Z]{2,})|\\angle\s*\{?\s*([A-Z]{3}))"
)
_CAPITAL = re.compile(r"\\(?:Gamma|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega)(?![a-z])")
_SMALL = re.compile(r"\\(?:gamma|delta|theta|lambda|xi|sigma|phi|psi|omega)(?![a-z])")
_WORD = re.compile(r"[A-Za-z]{3,}")
_ANGLE = re.compile(
    r"\\?(?<![A-Za-z])(sin|cos|tan|cot|sec|csc)\s*\(?\{?\s*(\d+(?:\.\d+)?)\s*(?:\^\s*\{?\s*\\circ\s*\}?|°)\s*[)}]?"
)
_BINOMIAL = re.compile(r"binom.{0,20}\d{6}")  # worked out while it is read, where no alarm reaches

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of every odd answer, in full
logging.getLogger("latex2sympy2_extended").setLevel(logging.ERROR)


class TooLongError(BaseException):
    """Work over the limit. It passes the ``except Exception`` in the libraries."""


def equivalent(truth: str, found: str) -> bool:
    """Whether math-verify and SymPy take two answers for the same.

    Raises:
        ValueError: the reference takes too long to read.
    """
    if len(found) > LONGEST or _unlike(truth, found):
        return False
    wanted = _reference(truth)
    if not wanted:
        return False
    try:
        with limited():
            return _equal(wanted, read(found))
    except (TooLongError, RecursionError):
        return False


def _unlike(truth: str, found: str) -> bool:
    """Whether texts differ in what math-verify does not see: ratios, times, bases, capital Greek letters."""
    if bool(_RATIO.search(truth)) != bool(_RATIO.search(found)):
        return True
    if any(pattern.findall(truth) != pattern.findall(found) for pattern in (_CLOCK, _BASE, _DATE)):
        return True
    if _primes(truth) != _primes(found) or _directions(truth) != _directions(found):
        return True
    return bool(_CAPITAL.search(truth)) != bool(_CAPITAL.search(found)) and bool(_SMALL.search(truth + found))


def _primes(text: str) -> list[int]:
    """How often each function is derived: math-verify reads f'(x) as f(x)."""
    marks = (
        (re.sub(r"\\prime", "'", mark) for mark in _PRIMES.findall(text))
        if "'" in text or "prime" in text
        else ()
    )
    return [mark.count("'") for mark in marks]


def _directions(text: str) -> list[str]:
    """Names of vectors, in order, and of angles from either side: math-verify multiplies their letters."""
    return [vector or min(angle, angle[::-1]) for vector, angle in _DIRECTED.findall(text)]


def latex(text: str) -> str:
    """An answer as LaTeX for math-verify: without delimiters and units, with signs and names in full."""
    text = _ANGLE.sub(r"\\\1(\\frac{\2 \\pi}{180})", text) if "circ" in text or "°" in text else text
    text = re.sub(r"\$|(?<!\\)\\[()\[\]]|\\text\s*\{\s*\}", " ", tidy(text)).strip(" ;").rstrip(" .;")
    text = _SIGN.sub(lambda found: _SIGNS[found[0]], text) if not text.isascii() else text
    text = _ROOT.sub(lambda found: f"\\sqrt{{{found[1] or found[2] or found[3] or ''}}}", text)
    text = _NAME.sub(lambda found: "\\infty " if found[0] == "infinity" else f"\\{found[0]} ", text)
    text = _GLUED_OR.sub(", ", _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text))
    text = text.replace("**", "^").replace("<=", "\\le ").replace(">=", "\\ge ").replace("!=", "\\ne ")
    text = _SIGNED_POWER.sub(r"^{\1}", re.sub(r"(?<![\d.])\.(?=\d)", "0.", text))
    text = re.sub(r"\\text(?:normal|rm|bf|it)|\\mbox", r"\\text", text).replace("*", " \\cdot ")
    text = _PRODUCT.sub(r"\1 \\cdot (", _MIXED.sub(r"\1\\frac{\2}{\3}", text))
    return (_UNIT.sub("", text).strip() or text).strip()


def read(text: str) -> list[Any]:
    """SymPy's reading of an answer, then its LaTeX; only that, or nothing, where it is no mathematics."""
    text = latex(text)
    if not text:
        return []
    if _APART.search(_COMMAND.sub("x", text)) or _BINOMIAL.search(text) or _is_text(text):
        return [text]
    found = list(parse(f"\\boxed{{{text}}}", _READING, parsing_timeout=None))
    return found if all(isinstance(part, str) or _bounded(part) for part in found) else [text]


def _is_text(text: str) -> bool:
    """Whether an answer is words, or a name of capital letters: math-verify would multiply the letters."""
    words = _WORD.findall(re.sub(r"\\[A-Za-z]+|\b(?:and|or)\b", " ", text))
    return bool(re.fullmatch(r"[A-Z]{2,}", text) or (words and not re.search(r"\d|=|\\(?!text)|\^", text)))


def _bounded(value: Any) -> bool:
    """Whether powers and factorials can be worked out: no alarm reaches where big integers are made."""
    try:
        return not isinstance(value, Basic) or _digits(value) <= _DIGITS
    except OverflowError:
        return False


def _digits(value: Any) -> float:
    """About the number of digits of the largest integer that working out an expression makes.

    Raises:
        OverflowError: too many.
    """
    if isinstance(value, Rational):
        return 0.31 * max(value.p.bit_length(), value.q.bit_length())
    below = [_digits(part) for part in value.args]
    if isinstance(value, Pow):
        if below[1] > 6:
            raise OverflowError
        return below[0] * (float(abs(value.exp.evalf(15))) if value.exp.is_number else 1.0)
    if isinstance(value, (factorial, factorial2)) and value.args[0].is_number:
        if below[0] > 5:
            raise OverflowError
        count = float(abs(value.args[0].evalf(15)))
        return count * math.log10(count + 3.0)
    return sum(below) if value.is_Mul else max(below, default=1.0)


@lru_cache(maxsize=1024)
def _reference(truth: str) -> tuple[Any, ...]:
    """The G completions of a prompt share their reference."""
    try:
        with limited():
            return tuple(read(truth))
    except TooLongError:
        raise ValueError(f"column 'answer': {truth[:60]!r} takes more than {SECONDS:g} s to read") from None


def _equal(wanted: tuple[Any, ...], given: list[Any]) -> bool:
    """Whether two readings are equal: as text, as numbers, or for math-verify."""
    if not given:
        return False
    if isinstance(wanted[0], str) or isinstance(given[0], str):
        return _verify(wanted, given)
    one, other = wanted[0], _side(wanted[0], given[0])
    if other is None or _side(given[0], wanted[0]) is None:
        return False
    if isinstance(one, Eq) and (one.lhs.is_Symbol or one.lhs.is_Function):
        one = _side(other, one)
    verdict = _as_numbers(one, other)
    if verdict is not None:
        return verdict
    if _same_name(one, other) or _verify([_exact(wanted[0])], [_exact(given[0])]):
        return True
    rounded = _has_point(wanted[0]) or _has_point(given[0])
    return rounded and not _tiny(wanted[0]) and not _tiny(given[0]) and _verify([wanted[0]], [given[0]])


def _same_name(one: Any, other: Any) -> bool:
    """Whether an expression comes to a bare name: math-verify compares those as text."""
    if not (isinstance(one, Expr) and isinstance(other, Expr) and (one.is_Symbol or other.is_Symbol)):
        return False
    return bool((one - other).doit().expand() == 0)


def _verify(wanted: Sequence[Any], given: Sequence[Any]) -> bool:
    return bool(verify(list(wanted), list(given), timeout_seconds=None, allow_set_relation_comp=True))


def _side(against: Any, value: Any) -> Any:
    """The right side of an equation held against a value; None for ``x^2 + 1 = 0``, which states none."""
    if not isinstance(value, Eq) or isinstance(against, Eq):
        return value
    left, right = value.lhs, value.rhs
    return None if right.is_zero and not (left.is_Symbol or left.is_Function or left.is_number) else right


def _as_numbers(one: Any, other: Any) -> bool | None:
    """Whether two numbers are equal: exactly, or nearly where one is a decimal; None for anything else."""
    if not (isinstance(one, Expr) and isinstance(other, Expr)):
        return None
    one, other = (_complex(side) for side in (one, other))
    if one.free_symbols or other.free_symbols:
        return None
    exact = [_exact(side).doit() for side in (one, other)]
    decimal = _has_point(one) or _has_point(other)
    if all(side.is_Rational for side in exact):
        endless_one = any(endless(int(side.q)) for side in exact)
        near = decimal and endless_one and _has_point(one) != _has_point(other)
        return bool(
            exact[0] == exact[1] or (near and abs(exact[0] - exact[1]) <= NEAR * max(map(abs, exact)))
        )
    values = [side.evalf(120) for side in exact]
    if not all(part.is_Number and part.is_finite for value in values for part in value.as_real_imag()):
        return None
    largest, gap = max(abs(value) for value in values), abs(values[0] - values[1])
    return bool(gap <= largest * (NEAR if decimal else _SAME))


def _complex(value: Expr) -> Expr:
    """A number with ``i`` is a complex one; math-verify takes ``i`` for a name."""
    names = {symbol.name: symbol for symbol in value.free_symbols}
    return value.xreplace({names["i"]: I}) if set(names) == {"i"} else value


def _has_point(value: Any) -> bool:
    return isinstance(value, (Basic, MatrixBase)) and bool(value.atoms(Float))


def _tiny(value: Any) -> bool:
    """Whether a number in it is so small that rounding to six decimals, as math-verify does, harms it."""
    small = any(number != 0 and abs(number) < Rational(1, 1000) for number in value.atoms(Float, Rational))
    return small or any(power.exp.is_Integer and power.exp < -2 for power in value.atoms(Pow))


def _exact(value: Any) -> Any:
    """The same with fractions for decimals."""
    if not _has_point(value):
        return value
    return value.xreplace({number: Rational(str(number)) for number in value.atoms(Float)})


@contextmanager
def limited() -> Iterator[None]:
    """Ends what takes more than ``SECONDS`` of processor time. Only in the main thread, as signals are.

    The alarm repeats: Python swallows what is raised inside a finaliser or a callback of its collector.
    """

    def stop(*_: object) -> None:
        raise TooLongError

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
