"""Names and codes of languages, and the script of a text."""

from __future__ import annotations

import re

from align.reward import RewardError

# What langdetect can tell, by its codes.
_NAMES = {
    "af": "afrikaans", "ar": "arabic ara", "bg": "bulgarian", "bn": "bengali bangla ben",
    "ca": "catalan", "cs": "czech ces cze", "cy": "welsh", "da": "danish dan",
    "de": "german deutsch deu ger", "el": "greek ell", "en": "english eng",
    "es": "spanish castilian español spa", "et": "estonian", "fa": "persian farsi fas per",
    "fi": "finnish fin", "fr": "french français fra fre", "gu": "gujarati", "he": "hebrew iw heb",
    "hi": "hindi hin", "hr": "croatian", "hu": "hungarian hun", "id": "indonesian in ind",
    "it": "italian italiano ita", "ja": "japanese 日语 日本語 jpn", "kn": "kannada",
    "ko": "korean 韩语 한국어 kor", "lt": "lithuanian", "lv": "latvian", "mk": "macedonian",
    "ml": "malayalam", "mr": "marathi", "ne": "nepali", "nl": "dutch flemish nld dut",
    "no": "norwegian nb nn bokmål nynorsk", "pa": "punjabi panjabi", "pl": "polish pol",
    "pt": "portuguese português por", "ro": "romanian ron rum", "ru": "russian русский rus",
    "sk": "slovak", "sl": "slovenian slovene", "so": "somali", "sq": "albanian", "sv": "swedish swe",
    "sw": "swahili swa", "ta": "tamil tam", "te": "telugu tel", "th": "thai tha",
    "tl": "tagalog filipino fil", "tr": "turkish tur", "uk": "ukrainian ukr", "ur": "urdu urd",
    "vi": "vietnamese vie", "zh": "chinese mandarin cmn zho chi 中文 汉语 漢語 普通话",
}  # fmt: skip
_CODES = {name: code for code, names in _NAMES.items() for name in (code, *names.split())}
_TRADITIONAL = frozenset({"tw", "hk", "mo", "hant", "traditional"})
_SIMPLIFIED = frozenset({"cn", "sg", "hans", "simplified"})
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")
_NOT_CHINESE = re.compile(r"[\u3040-\u30ff\uac00-\ud7a3]")  # kana, hangul


def code_of(language: str) -> str:
    """The code of a language: of two letters; ``zh``, or ``zh-cn`` and ``zh-tw`` where the script is named.

    Args:
        language: a code or an English name, with or without a region: ``pt_BR``, ``zh-Hant``, ``English``.

    Raises:
        RewardError: nobody knows it.
    """
    first, *rest = re.split(r"[\s\-_()]+", str(language).strip().lower().strip("()"))
    code = _CODES.get(first) or next(
        (_CODES[word] for word in rest if len(word) > 3 and word in _CODES), None
    )
    if code is None:
        raise RewardError(
            f"unknown language {language!r}",
            key="language",
            remedy=f"give one of the codes {', '.join(_NAMES)}, or its English name",
        )
    words = {first, *rest}
    if code == "zh" and words & _TRADITIONAL:
        return "zh-tw"
    return "zh-cn" if code == "zh" and words & _SIMPLIFIED else code


def chinese(text: str) -> str | None:
    """``zh-cn``, ``zh-tw``, or ``zh`` for characters that both scripts share; None for another language."""
    han = _HAN.findall(text)
    if 2 * len(han) <= len(_LETTER.findall(text)) or _NOT_CHINESE.search(text):
        return None
    simplified = sum(_encodes(character, "gb2312") and not _encodes(character, "big5") for character in han)
    traditional = sum(_encodes(character, "big5") and not _encodes(character, "gb2312") for character in han)
    return "zh" if simplified == traditional else "zh-cn" if simplified > traditional else "zh-tw"


def _encodes(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
