"""What may stand after a number without making it something else: units of measure, nouns, currencies."""

from __future__ import annotations

import re
from functools import lru_cache

CURRENCY = r"(?:\\?[$€£¥₹₽₩]|US\$|USD|EUR|RMB|CNY|Rs\.?)"

_WRAPPED = re.compile(
    r"\\(?:text(?:normal|rm|bf|it)?|mathrm|mathbf|mbox|hbox|operatorname|rm)\s*\{([^{}]*)\}"
)
_DEGREES = re.compile(r"\s*\^\s*\{?\s*\\circ\s*\}?|\s*°|\\degree")
_SYMBOL = (
    r"(?:[kcmdμµn]?m|[kmμµ]?g|[mc]?[lL]|m?s|min|hrs?|h|ft|in|yd|mi|lbs?|oz|mph|kph|sq|cu|gal|[mkM]?[WJNVA]|k?Hz|"
    r"[kM]?Pa|mol|k?[cC]al|rad|deg|C|F|K|Ω|t|ha|USD|RMB|CNY|EUR|dollars?|cents?|yuan)"
)
_POWER = r"(?:\s*\^?\s*\{?-?[1-3²³]\}?)?"
_UNIT = re.compile(
    rf"(?:\s*{_SYMBOL}{_POWER}(?:\s*[/·]\s*{_SYMBOL}{_POWER})*\.?|"
    rf"\s+(?:an?|[A-Za-z][a-z]+)\.?(?:[ /-][A-Za-z][a-z]*{_POWER}){{0,4}}{_POWER}|"
    rf"\s+(?P<letters>[A-Za-z]{{1,4}}){_POWER}(?:\s*/\s*[A-Za-z]{{1,4}}{_POWER})*|"
    rf"\s*{CURRENCY}|\s*[\u4e00-\u9fff]{{1,6}}(?:/[\u4e00-\u9fff]{{1,3}})?)"
)
_NO_UNIT = re.compile(
    r"\b(?:pi|sqrt|sin|cos|tan|log|ln|exp|mod|or|and|to|times|plus|minus|over|not|but|if|for|when|where|is|"
    r"hundred|thousand|million|billion|trillion|half|third|quarter|more|less|fewer|squared|cubed|"
    r"factorial|doubled|halved|tripled|divided|multiplied|raised|power|base|vs|versus|possibly|perhaps|maybe|than|of)\b|"
    r"以[上下内外]|次方|进制|倍数|[或和与到至又不没的多余零一二三四五六七八九十百万亿点]|千(?![克米瓦卡帕赫焦伏字])",
    re.IGNORECASE,
)
_VARIABLES = frozenset("abcdefijknopqruvwxyzBDEGHILMOPQRSTUXYZ")  # one such letter after a number is no unit

_SAME = (
    "mm millimeter millimetre 毫米", "cm centimeter centimetre 厘米", "dm decimeter decimetre 分米",
    "m meter metre 米", "km kilometer kilometre 千米 公里", "in inch inche 英寸", "ft foot feet 英尺",
    "yd yard 码", "mi mile 英里", "mg milligram 毫克", "g gram 克", "kg kilogram 千克 公斤", "t tonne 吨",
    "lb pound", "oz ounce", "ms millisecond 毫秒", "s sec second 秒 秒钟", "min minute 分钟",
    "h hr hour 时 小时", "day 天", "week 周 星期", "month 个月", "year 年", "$ usd dollar 美元", "cent 美分",
    "¥ rmb cny yuan 元", "角", "€ eur euro 欧元", "£ 英镑", "mL ml milliliter millilitre 毫升",
    "L l liter litre 升", "J joule 焦耳", "kJ kilojoule 千焦", "MJ megajoule", "N newton 牛顿 牛",
    "kN kilonewton 千牛", "mN", "V volt 伏特 伏", "mV millivolt", "kV kilovolt", "A amp ampere 安培",
    "mA milliampere milliamp", "W watt 瓦特 瓦", "kW kilowatt 千瓦", "MW megawatt", "mW milliwatt",
    "Hz hertz 赫兹", "kHz kilohertz", "MHz megahertz", "Pa pascal 帕斯卡", "kPa kilopascal 千帕",
    "MPa megapascal", "cal calorie 卡路里", "kcal kilocalorie 千卡", "mol mole 摩尔", "mmol millimole",
    "degree deg 度", "rad radian 弧度", "°C celsius 摄氏度", "°F fahrenheit 华氏度", "K kelvin 开尔文",
    "am a.m", "pm p.m", "gal gallon 加仑", "ha hectare 公顷", "acre 英亩",
)  # fmt: skip
_KINDS = {name: kind for kind, names in enumerate(_SAME) for name in names.split()}
_MONEY = {_KINDS[sign] for sign in ("$", "cent", "¥", "角", "€", "£")}
_TEMPERATURES = {_KINDS[sign] for sign in ("°C", "°F", "K")}
_SPELLED = (
    (re.compile(r"\bdegrees?\s+(?:C\b|celsius|centigrade)|°\s*C\b|℃", re.IGNORECASE), "°C"),
    (re.compile(r"\bdegrees?\s+(?:F\b|fahrenheit)|°\s*F\b|℉", re.IGNORECASE), "°F"),
    (re.compile(r"\bmph\b", re.IGNORECASE), "mi/h"),
    (re.compile(r"\bkm/?ph\b|\bkph\b", re.IGNORECASE), "km/h"),
    (re.compile(r"\b([ap])\.\s?m\b", re.IGNORECASE), r"\1m"),
    (re.compile(r"(?:\b(?:square|sq)\.?\s+|平方)([A-Za-z]+|[\u4e00-\u9fff]+)"), r"\1^2"),
    (re.compile(r"(?:\b(?:cubic|cu)\.?\s+|立方)([A-Za-z]+|[\u4e00-\u9fff]+)"), r"\1^3"),
    (
        re.compile(r"([A-Za-z]+)\s+(squared|cubed)\b"),
        lambda found: found[1] + "^" + str(2 + (found[2] == "cubed")),
    ),
    (re.compile(r"\s+(?:per|an?)\s+|每"), "/"),
    (re.compile(r"²"), "^2"),
    (re.compile(r"³"), "^3"),
)
_FACTOR = re.compile(r"([/·*]?)\s*(°?[A-Za-z.]+|[\u4e00-\u9fff]+|[$€£¥])\s*(?:\^?\s*\{?\s*(-?\d)\s*\}?)?\s*")


def unit(text: str, money: str = "") -> str | None:
    """The unit that a text is ("cm^2"), or "" for none; None where it is anything else.

    Args:
        text: what follows a number.
        money: the whole of it, whose sign of currency counts where no unit follows.
    """
    text = text.rstrip(" .。")
    if not text:
        sign = re.search(r"[$€£¥]", money)
        return sign[0] if sign else ""
    text = text.replace("℃", " degrees C").replace("℉", " degrees F")
    text = _DEGREES.sub(" degrees ", _WRAPPED.sub(r" \1 ", text)).rstrip()
    text = re.sub(r"^\s*\(([A-Za-z\u4e00-\u9fff ]+)\)$", r" \1", re.sub(r"\s+", " ", text))  # 24（个）
    found = _UNIT.fullmatch(text)
    if found is None or _NO_UNIT.search(text) or found["letters"] in _VARIABLES:
        return None
    return text.strip()


def clash(one: str, other: str) -> bool:
    """Whether two units are known and differ, powers and parts included: cm^2 and cm^3, m/s and km/h.

    Of money, what it is for may be left out ("$18" for "$18 a day"), and of a temperature its scale.
    """
    if one == other:
        return False
    kinds, others = _factors(one), _factors(other)
    if not kinds or not others or kinds == others:
        return False
    if set(kinds) & _MONEY and set(others) & _MONEY:
        return kinds.keys() & _MONEY != others.keys() & _MONEY
    degree = {_KINDS["degree"]: 1}
    vague = (kinds == degree and set(others) <= _TEMPERATURES) or (
        others == degree and set(kinds) <= _TEMPERATURES
    )
    return not vague


@lru_cache(maxsize=1024)
def _factors(text: str) -> dict[int, int] | None:
    """The parts of a unit with their powers; None where one is unknown."""
    for pattern, plainly in _SPELLED:
        text = pattern.sub(plainly, text)
    factors: dict[int, int] = {}
    text, at = text.strip(" \\."), 0
    while at < len(text):
        found = _FACTOR.match(text, at)
        kind = _kind(found[2].strip(".")) if found else None
        if found is None or kind is None:
            return None
        factors[kind] = factors.get(kind, 0) + int(found[3] or 1) * (-1 if found[1] == "/" else 1)
        at = found.end()
    return factors


def _kind(name: str) -> int | None:
    names = (name, name.lower(), name.lower().removesuffix("s"), name.lower().removesuffix("es"))
    return next((_KINDS[known] for known in names if known in _KINDS), None)
