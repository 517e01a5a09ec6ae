"""Language consistency: the share of an answer that is in the language of its prompt.

English and Chinese are told apart by script. The units are words of letters and single Han
characters, so that one English name in a Chinese sentence weighs as one word and not as ten characters.
Code, formulas, links, digits and single Latin letters (variables, options) are left out. Languages
that share a script are not told apart: French counts as English, Japanese in Han characters as Chinese.
"""

from __future__ import annotations

import re

from align.reward import Sample, reward

from ._languages import code_of

_OPENING = 10  # units of a prompt that tell its language
_IGNORED = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`"  # code, also unfinished
    r"|\$\$.{0,600}?\$\$|\$(?=\S)[^$\n]*(?<=\S)\$(?!\d)|\\\(.{0,300}?\\\)|\\\[.{0,600}?\\\]"
    r"|\\boxed\{[^{}\n]*\}|\\[A-Za-z]+|\bhttps?://[^\s\u3000-\u9fff]+|</?\w+>",
    re.DOTALL,
)
_UNITS = re.compile(
    r"(?P<zh>[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
    r"|(?P<en>[A-Za-z\u00c0-\u024f][A-Za-z\u00c0-\u024f'’]+)"
    r"|(?P<other>[^\W\d_A-Za-z\u00c0-\u024f\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])"
)


@reward
def language(sample: Sample, expected: str | None = None) -> float | None:
    """Share of the answer's words and Han characters in the expected language; abstains without any.

    Args:
        expected: English or Chinese, as a code or name (``en``, ``zh-CN``, ``Chinese``); without it the
            column ``language`` where the row has one, else the language of the first words of the last
            user message.
    """
    given = expected or sample.get("language")
    wanted = code_of(given).partition("-")[0] if given else _asked_in(sample)
    if wanted is None:
        return None
    if wanted not in {"en", "zh"}:
        raise ValueError(f"knows the languages en and zh, not {given!r}")
    found = units(sample.completion)
    return found.count(wanted) / len(found) if found else None


def units(text: str) -> list[str]:
    """What each unit of a text outside code and formulas is written in: ``en``, ``zh`` or ``other``."""
    return [str(found.lastgroup) for found in _UNITS.finditer(_IGNORED.sub(" ", text))]


def _asked_in(sample: Sample) -> str | None:
    """What the request opens in: a text that it quotes may be in another language."""
    asked = next((turn["content"] for turn in reversed(sample.prompt) if turn["role"] == "user"), "")
    opening = units(asked)[:_OPENING]
    most = max(("en", "zh"), key=opening.count)
    return most if opening.count(most) > len(opening) / 2 else None
