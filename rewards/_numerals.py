"""Numbers in words: English cardinals and parts (three quarters), Chinese numerals (十二, 三分之二)."""

from __future__ import annotations

import re
from fractions import Fraction

SCALES = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "百": 10**2,
    "千": 10**3,
    "万": 10**4,
    "亿": 10**8,
}
# 千克, 千米 are units; 3千 is a number
SCALE = r"(?:hundred|thousand|million|billion|trillion)\b|[百千](?![克米瓦卡帕赫焦伏字])|[万亿]"

_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_CARDINALS = {word: value for value, word in enumerate(_ONES)}
_CARDINALS |= {word: 10 * value for value, word in enumerate(_TENS, start=2)}
_PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5}
_PARTS |= {"sixth": 6, "eighth": 8, "ninth": 9, "tenth": 10}
_PHRASE = re.compile(r"[A-Za-z ,.-]+")
_FIRST = re.compile("|".join(["a", "half", *_CARDINALS]), re.IGNORECASE)

_FORMAL = str.maketrans("壹贰叁肆伍陆柒捌玖拾佰仟兩萬億", "一二三四五六七八九十百千两万亿") | {
    ord("廿"): "二十",
    ord("卅"): "三十",
}
_HAN_DIGITS = {sign: value for value, sign in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_TENFOLD = {"十": 10, "百": 100, "千": 1000}
_HAN = "".join([*_HAN_DIGITS, *_TENFOLD, "万亿"])
_SIGN = rf"(?!千[克米瓦卡帕赫焦伏字])[{_HAN}]"
_HAN_NUMBER = re.compile(
    rf"(?P<percent>百分之)?(?:(?:(?P<mixed>[{_HAN}\d]+)又)?(?P<bottom>[{_HAN}\d]+)分之)?"
    rf"(?P<number>(?:\d+(?:\.\d+)?|{_SIGN})+(?:点[零〇一二三四五六七八九]+)?)(?P<rest>千?[^\d{_HAN}]*)"
)


def in_words(text: str) -> tuple[Fraction, str] | None:
    """The number that an English phrase starts with ("forty-two apples"), and what follows it; else None."""
    if not _FIRST.match(text) or not _PHRASE.fullmatch(text):
        return None
    words = re.findall(r"[A-Za-z]+", text)
    total, current, used, numeral = 0, 0, 0, False
    for place, word in enumerate(words):
        name = word.lower()
        if name in _CARDINALS:
            current += _CARDINALS[name]
        elif name in SCALES and (numeral or name != "hundred" or place):
            current = max(current, 1) * SCALES[name]
            if SCALES[name] > 100:
                total, current = total + current, 0
        elif place and place == len(words) - 1 and (name in _PARTS or name.removesuffix("s") in _PARTS):
            return Fraction(max(total + current, 1), _PARTS.get(name) or _PARTS[name.removesuffix("s")]), ""
        elif not ((name == "and" and numeral) or (name == "a" and not place)):
            break
        numeral = numeral or name in _CARDINALS or name in SCALES
        used = place + 1 if name != "and" else used
    if words[0].lower() == "half" and len(words) == 1:
        return Fraction(1, 2), ""
    return (Fraction(total + current), " ".join(words[used:])) if numeral else None


def in_chinese(text: str) -> tuple[Fraction, bool, str] | None:
    """The number that a Chinese numeral is, whether it is a percentage, and what follows it; else None."""
    if text == "一半":
        return Fraction(1, 2), False, ""
    text = text.translate(_FORMAL)
    found = _HAN_NUMBER.fullmatch(text.replace(" ", ""))
    if found is None or not re.search(rf"[{_HAN}]", found[0]):
        return None
    value = _han(found["number"])
    if value is not None and found["bottom"]:
        bottom, mixed = _han(found["bottom"]), _han(found["mixed"] or "零")
        value = mixed + value / bottom if bottom and mixed is not None else None
    return None if value is None else (value, bool(found["percent"]), found["rest"])


def last_chinese(text: str) -> str | None:
    """The last numeral of a Chinese phrase with what is counted ("还剩八本书"), if the phrase ends there."""
    found = list(re.finditer(rf"(?<!星期)(?<![周第])(?<!礼拜)[{_HAN}]+", text.translate(_FORMAL)))
    if not found or len(text) - found[-1].end() > 6:
        return None
    return text.translate(_FORMAL)[found[-1].start() :]


def _han(text: str) -> Fraction | None:
    """The value of a numeral (一百二十, 三点五, 二〇二四, 1万2千); None where it is not one (三五)."""
    whole, _, decimals = text.partition("点")
    signs = re.findall(r"\d+(?:\.\d+)?|.", whole)
    if len(signs) > 1 and all(sign in _HAN_DIGITS for sign in signs):
        year = "".join(str(_HAN_DIGITS[sign]) for sign in signs)
        return Fraction(int(year)) if len(signs) > 2 else None
    total, section, digit = Fraction(0), Fraction(0), Fraction(0)
    for sign in signs:
        if sign in _TENFOLD:
            section += (digit or 1) * _TENFOLD[sign]
            digit = Fraction(0)
        elif sign in "万亿":
            below = section + digit
            total = (total + below) * SCALES[sign] if sign == "亿" else total + below * SCALES[sign]
            section = digit = Fraction(0)
        elif digit:
            return None
        else:
            digit = Fraction(_HAN_DIGITS.get(sign, sign))
    tail = "".join(str(_HAN_DIGITS[sign]) for sign in decimals)
    return total + section + digit + Fraction(f"0.{tail or 0}")
