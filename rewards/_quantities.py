"""Answers that are several numbers but one amount (5 hours 30 minutes, 3 dollars and 50 cents), and times of
day."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from ._numbers import NUMBER, plain, tidy
from ._numerals import in_chinese

_FAMILIES = (
    (
        (604800, "weeks? 周 星期"), (86400, "days? 天 日"), (3600, "hours? hrs? h 小时 个小时 时"),
        (60, "minutes? mins? 分钟 分"), (1, "seconds? secs? s 秒钟? 秒"),
    ),
    ((12, "feet foot ft '"), (1, "inch(?:es)? in \" ''")),
    ((1000, "kilomet(?:er|re)s? km 千米 公里"), (1, "met(?:er|re)s? m 米"),
     (Fraction(1, 100), "centimet(?:er|re)s? cm 厘米"), (Fraction(1, 1000), "millimet(?:er|re)s? mm 毫米")),
    ((1000, "kilograms? kg 千克 公斤"), (1, "grams? g 克")),
    ((16, "pounds? lbs?"), (1, "ounces? oz")),
    ((100, "dollars? 元 块"), (10, "角 毛"), (1, "cents? 分")),
)  # fmt: skip
"""Each unit with its size in the smallest of its family, the largest first."""

_WHOLE = re.compile(
    r"^(?:(?:about|exactly|around|approximately|it takes|共|一共|大约|约)\s*)?", re.IGNORECASE
)
_JOINT = r"\s*(?:,\s*)?(?:and\s+|and(?=\d)|又|零)?\s*"
_AMOUNT = rf"(?:\$\s*)?(?:{NUMBER}|[零〇一二三四五六七八九十百两]+)"
_PATTERNS = [
    re.compile(
        "".join(
            rf"(?:(?P<n{place}>{_AMOUNT})\s*-?\s*(?:{'|'.join(sorted(names.split(), key=len, reverse=True))})"
            rf"(?![A-Za-z])\.?{_JOINT})?"
            for place, (_, names) in enumerate(family)
        ),
        re.IGNORECASE,
    )
    for family in _FAMILIES
]
_CLOCK = re.compile(
    r"(?:at\s+)?(?P<hour>\d{1,2})(?:\s*:\s*(?P<minute>[0-5]\d))?(?::[0-5]\d)?\s*"
    r"(?P<half>[ap]\s?\.?\s?m\b\.?)?",
    re.IGNORECASE,
)
_LONGEST = 80  # characters of an amount


@lru_cache(maxsize=4096)
def amount(text: str) -> tuple[int, Fraction, tuple[Fraction, ...]] | None:
    """An amount in units of one family: which, how much in the smallest, and how much in each unit it names.

    None for anything else; a number with one unit counts.
    """
    if len(text) > _LONGEST:
        return None
    text = tidy(re.sub(r"\\text(?:rm|bf)?\s*\{([^{}]*)\}", r" \1 ", text)).rstrip(" .。*")
    text = text[_WHOLE.match(text).end() :]  # type: ignore[union-attr]
    for number, (family, pattern) in enumerate(zip(_FAMILIES, _PATTERNS, strict=True)):
        found = pattern.fullmatch(text) if text else None
        given = [
            (Fraction(size), value)
            for place, (size, _) in enumerate(family)
            if found and found[f"n{place}"] and (value := _value(found[f"n{place}"])) is not None
        ]
        if given:
            total = sum((size * value for size, value in given), Fraction(0))
            return number, total, tuple(total / size for size, _ in given)
    return None


def _value(written: str) -> Fraction | None:
    read = plain(written.removeprefix("$"))
    if read:
        return read.value
    chinese = in_chinese(written)
    return chinese[0] if chinese else None


def same_amount(truth: str, found: str) -> bool | None:
    """Whether two answers are the same amount or time; None where neither is more than a number with a unit.

    An amount without a unit is held against each unit that the other one names: 330 or 5.5 is 5 h 30 min.
    """
    times = clock(truth), clock(found)
    if times[0] and times[1] and 1 in map(len, times):  # 3:30 may also be a ratio
        return bool(times[0] & times[1])
    wanted, given = amount(truth), amount(found)
    if wanted and given and wanted[:2] == given[:2]:
        return True  # 2 weeks, 14 days
    if not any(side and len(side[2]) > 1 for side in (wanted, given)):
        return None
    if wanted and given:
        return False
    one, other = (wanted, found) if wanted else (given, truth)
    bare = plain(other)
    if one is None or bare is None or bare.unit not in ("", "$"):
        return False
    return any(value in bare.values for value in one[2])


def clock(text: str) -> set[int] | None:
    """The minutes of the day that a time of day may mean; two where it does not say which half; else None."""
    if len(text) > _LONGEST:
        return None
    text = re.sub(r"\\text(?:rm)?\s*\{([^{}]*)\}", r" \1 ", text)
    found = _CLOCK.fullmatch(tidy(text).strip(" $").rstrip(".") + ("." if text.endswith("m.") else ""))
    if found is None or not (found["minute"] or found["half"]):
        return None
    hour, minute = int(found["hour"]), int(found["minute"] or 0)
    if hour > (12 if found["half"] else 24):
        return None
    if found["half"]:
        return {(hour % 12 + 12 * (found["half"][0] in "pP")) * 60 + minute}
    if hour == 0 or hour > 12:
        return {hour % 24 * 60 + minute}
    return {(hour % 12) * 60 + minute, (hour % 12 + 12) * 60 + minute}
