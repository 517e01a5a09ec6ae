"""Boxes (``\\boxed{…}``) of a text: the last one, with those before it that are of the same list."""

from __future__ import annotations

import re

_BRACES = re.compile(r"\\+(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE = re.compile(r"\\boxed(?:\s+|(?=\d))([^\s{}$\\]*[^\s{}$\\.,;]|\\[A-Za-z]+)")  # \boxed 5, \boxed5
_UNCLOSED = re.compile(r"\\(?:boxed|fbox)\s{0,3}\{(.{1,300})$", re.MULTILINE)
_WHOLE = re.compile(r"\\boxed\s*\{(.*)\}", re.DOTALL)

# What stands between two boxes of one answer; words of a correction part them.
_SETTING = re.compile(r"\\(?:quad|qquad|text|mathrm)(?![a-z])|[${}\\()\[\]*]")
_JOINT = re.compile(r"\band\b|\bor\b|[,;&、，；和或及与]", re.IGNORECASE)
_CORRECTION = re.compile(
    r"\b(?:then|wait|no|not|but|so|actually|hence|thus|therefore|instead|correct\w*|hmm|again|finally|rather|step|"
    r"gives?|check)\b|[.!?。]\s|\n\n\n|[不步]|所以|因此|\\implies|\\Rightarrow",
    re.IGNORECASE,
)


def last_boxes(text: str) -> tuple[int, str] | None:
    """Start and content of the last box; the contents of several, joined by commas, where they are one list.

    Braces may nest. A last box that is never closed counts up to the end of its line.
    """
    if "boxed" not in text and "fbox" not in text:
        return None
    boxes = _complete(text)
    if not boxes:
        bare = _UNCLOSED.search(text) or next(reversed(list(_BARE.finditer(text))), None)
        return (bare.start(), bare[1].strip()) if bare else None
    listed = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        if not of_one_list(text[box[1] : listed[0][0]]):
            break
        listed.insert(0, box)
    contents = dict.fromkeys(_inner(content) for _, _, content in listed)
    return listed[-1][0], ", ".join(contents)


def of_one_list(written: str) -> bool:
    """Whether what is written between two boxes makes them one list, and not a correction."""
    between = _SETTING.sub(" ", written) if len(written) < 200 else written
    near = len(between.strip()) < 10 or (len(between) < 70 and _JOINT.search(between))
    return bool(near) and not _CORRECTION.search(between)


def _complete(text: str) -> list[tuple[int, int, str]]:
    """Start, end and content of the last boxes that are closed and in no other, at most 21."""
    opened: list[tuple[int, int, bool]] = []
    boxes: list[tuple[int, int, str]] = []
    for token in _BRACES.finditer(text):
        if token[0] == "}":
            start, begin, is_box = opened.pop() if opened else (0, 0, False)
            if is_box:
                boxes = [box for box in boxes[-20:] if box[0] < start]
                boxes.append((start, token.end(), text[begin : token.start()].strip()))
        elif token[0].endswith("{") and token[0] != "\\{":
            opened.append((token.start(), token.end(), token[0] != "{"))
    return boxes


def _inner(content: str) -> str:
    """The content of a box inside a box."""
    for _ in range(5):
        found = _WHOLE.fullmatch(content) if content.startswith("\\boxed") else None
        if found is None:
            break
        content = found[1].strip()
    return content
