"""Which part of a text is its final answer."""

from __future__ import annotations

import re
from collections.abc import Callable

from ._boxes import last_boxes
from ._claims import corrected, undenied
from ._numbers import plain
from ._prose import ASIDE, FORMULA, LAST_WORD, closing_formula, last_number, last_value

_CLOSED_THOUGHT = re.compile(r"</(?:think|thinking|thought|reasoning)>")
_OPEN_THOUGHT = re.compile(r"<(?:think|thinking|thought|reasoning)>")
_TAGGED = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)
_SPECIAL = re.compile(r"<\|[^|<>\s]{1,30}\|>\S{0,20}\s*$")

_HASHES = re.compile(r"####[ \t]*(\S.*)")
_STATED_NUMBER = re.compile(r"[-+.\d$€£¥\\(][^A-Za-z\n]*(?:[A-Za-z]+\W*)?")
_SIGNALS = re.compile(
    # "Final answer:", "**Answer**" alone on a line, "A: 18"
    r"^[ \t>*#_]*(?:(?:the|my)\s+)?(?:final\s+|correct\s+)?answers?\b[ \t*_]*(?:[:：][ \t*_]*|$)|"
    r"^[ \t*]*A:\s|"
    r"\b(?:final\s+)?answers?\b[ \t*_]*[:：][ \t*_]*|"
    # "the answer to the question is", "the answers are therefore"
    r"\b(?:final\s+)?answers?\b(?:\s+(?:to|for|of)\b[^.:\n]{0,100}?|\s*\([^()\n]{0,40}\)|"
    r"\s+(?:here|would|should|must|therefore|then))?\s*(?:is|are|=|equals|be)(?![A-Za-z])"
    r"\s*(?:therefore|thus|simply|then|just)?\s*[:：]?[ \t*_]*|"
    r"答案\s*(?:应该|应|就)?\s*(?:是|为|等于|[:：])\s*[:：]?|"
    r"\b(?:actually|wait|no|sorry|oops|correction|rather)\b,?(?:\s+\w+){0,4}?\s+"
    r"(?:it|that|this)(?:['’]s|\s+(?:is|should be|must be|equals))"
    r"(?: actually)?\s+(?=\S*\d)|"
    r"答案\s*(?=不是|并非)|(?:^|。)[ \t]*答[ \t]*[:：]",
    re.IGNORECASE | re.MULTILINE,
)
_ANCHOR = re.compile(
    r"[Aa]nswer|ANSWER|答|A:|[Aa]ctually"
)  # every signal has one; the search for them is quick
_STRONG = re.compile(r"final|^[\s>*#_]*(?:the\s+)?answers?\b[\s*_]*[:：]|答", re.IGNORECASE)
_STOP = re.compile(r"(?<!\bapprox)\.(?=\s|\*|$)|。|；|\n|\s*\(?\bI hope\b|<\|")
_DISPLAYED = re.compile(r"\s*(?:\\\[(.+?)\\\]|\$\$(.+?)\$\$)", re.DOTALL)
_NOT = re.compile(
    r"\s*(?:(?:certainly|definitely|clearly|surely|obviously|probably)\s+)?"
    r"(?:not\b(?! only)|n['’]t\b|never\b|anything but\b|neither\b|不是|并非)",
    re.IGNORECASE,
)
_BUT = re.compile(r"\bbut\s+(?:rather\s+)?|而是|\brather,?\s+")
_LEADING = re.compile(r"^(?:[\s*:：_\"“]|\\\")+")
_QUOTES = re.compile(r"^(?:\\?[\"“”]|')+|(?:\\?[\"“”]|')+$")
_FURTHEST = 2000  # characters after "the answer is" that are looked at


def spoken(text: str) -> str:
    """The text after its reasoning; of an unfinished reasoning, what stands before it."""
    if "<" not in text:
        return text
    closed = list(_CLOSED_THOUGHT.finditer(text))
    text = text[closed[-1].end() :] if closed else text
    opened = _OPEN_THOUGHT.search(text)
    text = text[: opened.start()] if opened else text
    return _SPECIAL.sub("", text) if "<|" in text else text


def claimed(text: str) -> str:
    """What a text says after its reasoning, without what it denies."""
    return undenied(spoken(text))


def final_answer(text: str) -> str | None:
    """The answer that a text states: in its last mark, else its last formula or number."""
    text = claimed(text)
    tagged = _TAGGED.findall(text) if "</answer>" in text else []
    if tagged:
        return marked(tagged[-1]) or tagged[-1].strip() or None
    return marked(text) or closing_formula(text) or last_value(text)


def marked(text: str) -> str | None:
    """What the last mark of a text states, or None where it has no mark.

    A mark is a box (boxes of one list count together), a line after ``####``, or a phrase like "the answer
    is". After a box, "final answer" and "answer:" count, and other phrases only where they state a value.
    """
    box, line, phrase = last_boxes(text), _hash(text), _phrase(text)
    if box and phrase and phrase[0] > box[0] and not phrase[2]:
        says = re.search(r"\d|\\[A-Za-z]|\$", phrase[1]) or plain(phrase[1])
        phrase = phrase if says else None
    found = [(mark[0], mark[1]) for mark in (box, line, phrase) if mark]
    return max(found)[1] if found else None


def boxed(text: str) -> str | None:
    """Content of the last ``\\boxed{…}``, with those before it that are of the same list."""
    found = last_boxes(text)
    return found[1] if found else None


def after_hash(text: str) -> str | None:
    """The rest of the line after the last ``####`` (GSM8K)."""
    found = _hash(text)
    return found[1] if found else None


def after_signal(text: str) -> str | None:
    """What follows the last "Answer:" or "answer is", to the end of the sentence."""
    found = _phrase(text)
    return found[1] if found else None


def _hash(text: str) -> tuple[int, str] | None:
    """Start and content of the last ``####`` line, unless it is a heading: words with more text below."""
    if "####" not in text:
        return None
    for found in reversed(list(_HASHES.finditer(text))[-5:]):
        content = found[1].strip()
        if not text[found.end() :].strip() or _STATED_NUMBER.fullmatch(content):
            return found.start(), content.removesuffix(".")
    return None


def _phrase(text: str) -> tuple[int, str, bool] | None:
    """Start and content of the last announcement of the answer, and whether it can be nothing else."""
    anchors = [found.start() for found in _ANCHOR.finditer(text)][-5:]
    if not anchors:
        return None
    start = text.rfind("\n", 0, anchors[0]) + 1
    for signal in reversed(list(_SIGNALS.finditer(text, start))[-20:]):
        content = _statement(text[signal.end() :][:_FURTHEST])
        if content:
            return signal.start(), content, bool(_STRONG.search(signal[0]))
    return None


def _statement(rest: str) -> str | None:
    """The answer at the start of a text: a displayed formula, a box, or the rest of the sentence."""
    displayed = _DISPLAYED.match(rest)
    if displayed:
        return (displayed[1] or displayed[2]).strip() or None
    box = last_boxes(rest.partition("\n\n")[0])
    if box:
        return box[1]
    rest = _LEADING.sub("", rest)
    formulas = [found.span() for found in FORMULA.finditer(rest[:600])]
    line = corrected(rest[: _outside(_STOP, rest, formulas)])
    formulas = [found.span() for found in FORMULA.finditer(line)]
    if _NOT.match(line):
        other = _BUT.split(line.replace("anything but", ""), maxsplit=1)
        line = other[1] if len(other) > 1 else ""
    line = _QUOTES.sub("", line[: _outside(ASIDE, line, formulas)].strip(" *_")).strip(" *_")
    tail = LAST_WORD.split(line)[-1]
    if line.endswith("!") and not formulas:  # an exclamation
        line, tail = line.rstrip("!"), tail.rstrip("!")
    return (tail if re.search(r"\d|\\[A-Za-z]|\$", tail) else line) or None


def _outside(pattern: re.Pattern[str], text: str, formulas: list[tuple[int, int]]) -> int:
    """Where a pattern first stands outside the formulas of a text; its end where it stands nowhere."""
    starts = (found.start() for found in pattern.finditer(text))
    return next((at for at in starts if not any(a <= at < b for a, b in formulas)), len(text))


STEPS: dict[str, Callable[[str], str | None]] = {
    "auto": final_answer,
    "boxed": lambda text: boxed(claimed(text)),
    "hash": lambda text: after_hash(claimed(text)),
    "answer": lambda text: after_signal(claimed(text)),
    "formula": lambda text: closing_formula(claimed(text)),
    "number": lambda text: last_number(claimed(text)),
}
"""Where to look, by the value of ``extract``."""
