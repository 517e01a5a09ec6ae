"""Plain numbers as people write them: signs, separators, powers of ten, scales, words, units."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from fractions import Fraction

from ._numerals import SCALE, SCALES, in_chinese, in_words
from ._units import CURRENCY, unit

_LONGEST = 300  # characters; a longer text is no number, and costs time
_LARGEST = 400  # the largest power of ten that is worked out

_COUNT = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d+)"
NUMBER = rf"(?:{_COUNT}(?:\.\d+)?|\.\d+)"
_PLAIN = re.compile(
    rf"(?P<sign>[-+]?)\s*{CURRENCY}?\s*(?P<inner>[-+]?)(?:"
    rf"(?P<whole>\d+)(?: |\s*(?=\\frac))(?P<part>\d+/\d+|\\frac\{{\d+\}}\{{\d+\}})|"
    r"\\frac\{(?P<top>[-+]?\d+(?:\.\d+)?)\}\{(?P<bottom>-?\d+(?:\.\d+)?)\}|"
    rf"(?P<number>(?:{NUMBER}|\d+,\d+|\d+\.)(?![.,]?\d))(?:\s*/\s*(?P<under>{NUMBER})(?![.,]?\d))?)"
    r"(?:[eE](?P<e>[-+]?\d{1,9})|\s*(?:\\times|\\cdot|×|·|\*|x)\s*10\s*(?:\^|\*\*)\s*"
    r"(?:\{\s*(?P<power>[-+]?\d{1,9})\s*\}|(?P<digits>[-+]?\d{1,9})))?"
    rf"(?P<scales>(?:\s*(?:{SCALE}))*)"
    r"(?P<percent>(?:\s*(?:\\?%|percentage\b|percent\b|pct\b))?)(?P<unit>.*)",
    re.DOTALL | re.IGNORECASE,
)
_NEGATIVE = re.compile(r"\s*(?:minus|negative|负)\s*", re.IGNORECASE)
_ABOUT = re.compile(
    r"[\s=~*]*(?:(?:approximately|about|exactly|roughly|around|only|just|≈|\\approx|约|大约|共|一共|还?有)\s*)?",
    re.IGNORECASE,
)
_WRAPPED_SCALE = re.compile(
    rf"\\(?:text|mathrm|mbox)\{{\s*((?:{SCALE}|\\?%|percent)(?:\s[^{{}}]*)?)\}}", re.IGNORECASE
)

_SIGNS = str.maketrans(
    {"−": "-", "–": "-", "﹣": "-", "－": "-", "＋": "+", "，": ",", "．": ".", "％": "%", "⁄": "/", "÷": "/"}
    | {"（": "(", "）": ")", "：": ":", "；": ";", "＝": "=", "\xa0": " ", "\u202f": " ", "\u2009": " "}
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}
)
_VULGAR = re.compile(r"(\d?)([¼-¾⅐-⅞])")
_REPEATING = re.compile(
    r"(\d*)\.(\d*)(?:\\(?:overline|bar|overbar|overset\{\\frown\})\s*(?:\{\s*(\d+)\s*\}|(\d))|"
    r"((?:\\dot\s*(?:\{\d\}|\d)\d*){1,2})|\((\d+)\)(?=$|\s|\$))"
)
_WORDED = re.compile(
    r"(?<![_^{])\\(?:text|mathrm|mbox|textbf|mathbf)\s*\{\s*"
    r"((?:about |around |exactly |approximately )?[-$€£¥]?\d[^{}]*)\}"
)  # \text{12 apples}
_RANK = re.compile(
    r"(?<=\d)\s*\^\s*(?:\{\s*)?(?:\\(?:text|mathrm|rm)\s*\{\s*)?(?:st|nd|rd|th)\s*\}{0,2}"
)  # 5^{th}
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b")
_AND_PART = re.compile(
    r"(.*\S)\s+and\s+((?:an?|one|two|three|four)\s+"
    r"(?:half|halves|thirds?|quarters?|fourths?|fifths?|eighths?|tenths?))",
    re.IGNORECASE,
)
_RAISED = re.compile(r"(?<=[A-Za-z\d)}])[⁺⁻]?[⁰¹²³⁴-⁹]+")
_LOWERED = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789")


@dataclass(frozen=True, slots=True)
class Plain:
    """A number with what stands around it."""

    value: Fraction
    percent: bool = False
    point: bool = False
    """It is written with a decimal point, so that it may be rounded."""
    listed: bool = False
    """It is a number only if its comma is a decimal one: 2,74 may also be two numbers."""
    unit: str = ""

    @property
    def values(self) -> set[Fraction]:
        """What it may mean: 50% is 50 and 1/2."""
        return {self.value, self.value / 100} if self.percent else {self.value}

    @property
    def endless(self) -> bool:
        """Whether it has no end as a decimal."""
        return endless(self.value.denominator)


def endless(denominator: int) -> bool:
    """Whether a fraction in lowest terms has no end as a decimal."""
    for factor in (2, 5):
        while denominator % factor == 0:
            denominator //= factor
    return denominator != 1


def narrow(text: str) -> str:
    """Text with narrow signs and digits, ``^{…}`` for raised digits, and ``1/2`` for ½."""
    if text.isascii():
        return text
    text = _RAISED.sub(lambda found: f"^{{{found[0].translate(_LOWERED)}}}", text.translate(_SIGNS))
    return _VULGAR.sub(lambda found: _vulgar(found[1], found[2]), text)


def _vulgar(before: str, sign: str) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", sign).partition("⁄")
    return f"{before}{' ' if before else ''}{top}/{bottom}"


def _repeated(found: re.Match[str]) -> str:
    """A repeating decimal as a fraction: 0.1\\overline{6} is 16 - 1 over 90."""
    once, again = found[2], re.sub(r"\D", "", found[3] or found[4] or found[5] or found[6])
    if len(once + again) > 20:
        return found[0]
    whole = found[1] or "0"
    value = Fraction(int(whole + once + again) - int(whole + once), (10 ** len(again) - 1) * 10 ** len(once))
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def tidy(text: str) -> str:
    """Text without what only sets a number or formula: thin spaces, sizes of brackets, kinds of fractions."""
    text = narrow(text.strip())
    if "\\" in text:
        if "\\\\" in text and not re.search(r"matrix|array|cases", text):
            text = re.sub(r"\\\\(?=[A-Za-z])", r"\\", text)
        text = re.sub(r"(?<=\d)\s*,\s*\\!\s*(?=\d{3}(?!\d))|(?<!\\)\\!\s*", "", text)
        text = re.sub(r"(?<=\d)\\[,; ](?=\d{3}(?!\d))", ",", text)
        text = re.sub(r"(?<!\\)\\[,;:> ]|\\q?quad(?![a-z])", " ", text)
        text = re.sub(r"\\(?:left|right|displaystyle|[bB]ig[lr]?)(?![A-Za-z])\s*", "", text)
        text = re.sub(r"\\(?:[dtcsx]|nice|flat)?frac(?![A-Za-z])\s*", r"\\frac", text)
        text = re.sub(r"\\frac(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
        text = text.replace("\\langle", "(").replace("\\rangle", ")")
        text = _WORDED.sub(r" \1 ", text)
    text = _RANK.sub("", text) if "^" in text else text
    text = re.sub(r"(\d+)又(\d+/\d+)", r"\1 \2", text) if "又" in text else text
    text = re.sub(r"(?<=\d)\s*\{\s*,\s*\}\s*(?=\d{3}(?!\d))", "", text) if "{" in text else text
    if "." in text:
        text = _REPEATING.sub(_repeated, text)
    text = re.sub(r"\*\*(?![\d({\w-])|(?<![\d)}\w])\*\*|__|`", "", text)
    return _ORDINAL.sub("", text).replace("~", " ").strip()


def plain(text: str) -> Plain | None:
    """A plain number, perhaps with a sign, a currency, a scale, a percent sign or a unit; else None."""
    if not text or len(text) > _LONGEST:
        return None
    if text.isdigit() and text.isascii():
        return Plain(Fraction(int(text)))
    text = tidy(text)
    if "\\" in text:
        text = _WRAPPED_SCALE.sub(r" \1", re.sub(r"(?<!\\)\\[()\[\]]", " ", text)).removesuffix("\\")
    text = re.sub(r"(?<!\\)\$([^$]+)\$", r"\1", text) if text.count("$") == 2 else text
    text = text[_ABOUT.match(text).end() :].rstrip(" \n。*")  # type: ignore[union-attr]
    negative = _NEGATIVE.match(text)
    text = text[negative.end() :] if negative else text
    found = _PLAIN.fullmatch(text)
    read = (_digits(found) if found else None) or _words(text)
    if read and negative:
        return replace(read, value=-read.value)
    return read


def _digits(found: re.Match[str]) -> Plain | None:
    """The number of a match of ``_PLAIN``, unless its rest is no unit."""
    rest = unit(found["unit"], money=found[0])
    power = int(found["e"] or found["power"] or found["digits"] or 0)
    if rest is None or abs(power) > _LARGEST or (found["sign"] and found["inner"]):
        return None
    written, listed = found["number"] or "", False
    if found["whole"]:
        part = _ratio(*re.findall(r"\d+", found["part"]))
        value = None if part is None else int(found["whole"]) + part
    elif found["top"]:
        value = _ratio(found["top"], found["bottom"])
    else:
        # 1,234 is 1234; 2,74 and 0,111 can only be decimals, or two numbers
        pair = re.fullmatch(r"\d+,\d+", written)
        listed = bool(pair) and (not re.fullmatch(_COUNT, written) or written.startswith("0"))
        if listed and not rest and re.fullmatch(r"[1-9]\d*,\d", written):
            return None  # 1,2 alone is a list
        value = _ratio(written.replace(",", ".") if listed else written, found["under"] or "1")
    if value is None:
        return None
    factor = Fraction(10) ** power
    for scale in re.findall(r"[a-z]+|[百千万亿]", found["scales"].lower()):
        factor *= SCALES[scale]
    factor = -factor if "-" in (found["sign"], found["inner"]) else factor
    return Plain(
        value * factor,
        bool(found["percent"]),
        point="." in written or listed,
        listed=listed,
        unit=rest,
    )


def _ratio(top: str, bottom: str) -> Fraction | None:
    over, under = (Fraction(re.sub(r"[, ]|\.$", "", number)) for number in (top, bottom))
    return over / under if under else None


def _words(text: str) -> Plain | None:
    """A number in words or Chinese numerals, with its unit."""
    if mixed := _AND_PART.fullmatch(text):  # one and a half
        whole, part = in_words(mixed[1]), in_words(mixed[2])
        return Plain(whole[0] + part[0]) if whole and part and not whole[1] and not part[1] else None
    chinese = None if text.isascii() else in_chinese(text)
    if chinese:
        value, percent, rest = chinese
    elif english := in_words(text):
        value, percent, rest = english[0], False, f" {english[1]}" if english[1] else ""
    else:
        return None
    found = unit(rest)
    return None if found is None else Plain(value, percent, unit=found)
