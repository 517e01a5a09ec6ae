"""The pieces of Python in an answer: fenced blocks, else what reads as code between the prose."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from textwrap import dedent

_OPEN = re.compile(
    r"^(?P<lead>[ \t>]*(?:(?:[-*+]|\d+[.)])[ \t]+)?(?:<\w+>[ \t]*)?)(?P<fence>`{3,}|~{3,})(?P<info>[^`\n]*)$"
)
# "Here it is: ```python", which Markdown does not allow
_LATE = re.compile(r"^(?P<text>[^`\n]+)(?P<fence>`{3,})(?P<info>py(?:thon)?3?)[ \t]*$", re.IGNORECASE)
_TAGS = re.compile(r"</?answer>")
_AFTER = re.compile(r"</\w+>\s*$")
_SPAN = re.compile(r"(`{1,3})(?:python\b)?([^`\n]+)\1(?!`)")
_PYTHON = re.compile(r"\{?\.?(?:py|py3|python[\d.]*|ipython\d?|sage)?\}?", re.IGNORECASE)
_PROMPTED = re.compile(r"^[ \t]*(?:>>> |In \[\d*\]:)", re.MULTILINE)
_MAGIC = re.compile(r"^[!%].*$", re.MULTILINE)  # of notebooks
_STARTS = re.compile(
    r"^(?P<indent>[ \t]*)(?:(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(|class[ \t]+\w+[ \t]*[:(]|@\w|import[ \t]+\w+"
    r"|from[ \t]+[\w.]+[ \t]+import\b|[A-Za-z_]\w*[ \t]*=[ \t]*[^=\s])"
)
_THOUGHT = re.compile(r"\A.*</think>", re.DOTALL)
_MARKED_UP = re.compile(
    r"<pre\b[^>]*>\s*<code\b[^>]*>[ \t]*\n?(.*?)</code>\s*</pre>", re.DOTALL | re.IGNORECASE
)
_ODD_BLANK = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000]")  # no-break spaces and their kind
_ODD_INDENT = re.compile(
    rf"^[ \t]*{_ODD_BLANK.pattern}[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]*", re.MULTILINE
)
_CUTS = 20  # places at which a text is cut to see whether what is before is code
_PIECES = 40  # of unfenced code, that are looked for
_LONGEST = 20_000  # characters of unfenced code
_INDENT_OF_CLOSING = 3  # more than the opening one: deeper, it is text inside of the block


@dataclass(frozen=True)
class Block:
    """A piece of Python."""

    text: str
    tree: ast.Module | None
    """None where it does not parse."""


def blocks_of(answer: str) -> list[Block]:
    """The pieces of an answer, in order; text up to ``</think>`` does not count.

    Blocks that are marked as Python or not marked at all; else, where there are none, blocks in any
    language that parse; else code without a fence. Sessions with ``>>>`` are no code.
    """
    answer = _plain(answer)
    fenced = list(_fenced(answer))
    if not fenced:
        answer = _TAGS.sub("\n", answer)
        return list(_unfenced(answer)) or list(_spans(answer))
    blocks = [(info, _block(text, closed=closed)) for info, text, closed in fenced]
    python = [
        block
        for info, block in blocks
        if (_PYTHON.fullmatch(info) and (info or block.tree is not None)) and block.text
    ]
    return python or [block for _, block in blocks if block.tree is not None and block.text]


def raw_blocks(answer: str) -> list[str]:
    """The texts of the fenced blocks as they are, last first; else all of the answer."""
    answer = _plain(answer)
    return [text for _, text, _ in _fenced(answer)][::-1] or [answer]


def _plain(answer: str) -> str:
    """An answer without its thought, its code in fences and indented with blanks."""
    answer = _THOUGHT.sub("", answer.replace("\r\n", "\n"))
    answer = _MARKED_UP.sub(lambda found: f"\n```python\n{unescape(found[1])}\n```\n", answer)
    return _ODD_INDENT.sub(lambda found: _ODD_BLANK.sub(" ", found[0]), answer.lstrip("\ufeff"))


def parse(text: str) -> ast.Module | None:
    """The syntax tree of a text, or None where it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "<answer>", "exec", dont_inherit=True)  # a stray `return` shows here only
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def written(tree: ast.AST) -> str | None:
    """The text of a tree, or None where it is too deep to write, though it parses."""
    try:
        return ast.unparse(ast.fix_missing_locations(tree))
    except (RecursionError, ValueError, MemoryError):
        return None


def longest(text: str) -> str:
    """The lines of a text up to the first that cannot be Python; empty where there are none."""
    lines = text[:_LONGEST].split("\n")
    for _ in range(_CUTS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse("\n".join(lines))
        except SyntaxError as error:
            # The last line of an unfinished block is to blame, not the place where its end is missed.
            lines = lines[: max(0, min(error.lineno or 1, len(lines)) - 1)]
        except (ValueError, RecursionError, MemoryError):
            return ""
        else:
            return "\n".join(lines).strip("\n")
    return ""


def _block(text: str, *, closed: bool = True) -> Block:
    text = dedent(text).strip()
    tree = parse(text)
    if tree is None and (session := _PROMPTED.search(text)):
        text = text[: session.start()].rstrip()
        tree = parse(text)
    if tree is None and _ODD_BLANK.search(text):
        plain = _ODD_BLANK.sub(" ", text)
        text, tree = plain, parse(plain)
    if tree is None and _MAGIC.search(text):
        text = _MAGIC.sub("", text).strip()
        tree = parse(text)
    if tree is None and not closed and (part := longest(text)):
        text, tree = part, parse(part)
    return Block(text, tree)


def _fenced(answer: str) -> Iterator[tuple[str, str, bool]]:
    """Language, text and whether it is closed, of each fenced block."""
    opened: re.Match[str] | None = None
    lead = ""
    lines: list[str] = []
    for line in answer.split("\n"):
        if opened is None:
            opened = _OPEN.match(line) or _LATE.match(line)
            lines = []
            lead = (opened.groupdict().get("lead") or "") if opened else ""
            continue
        fence = opened["fence"]
        if quoted := ">" in lead:
            line = re.sub(r"^[ \t]*> ?", "", line)
        closing = _AFTER.sub("", line.lstrip(" \t>") if quoted else line.lstrip(" \t")).rstrip()
        deeper = len(line) - len(line.lstrip()) > len(lead.expandtabs(4)) + _INDENT_OF_CLOSING
        if closing and not closing.strip(fence[0]) and len(closing) >= len(fence) and not deeper:
            yield _language(opened["info"]), "\n".join(lines), True
            opened = None
        elif closing.strip(fence[0]) and closing.endswith(fence) and closing.count(fence[0]) == len(fence):
            yield _language(opened["info"]), "\n".join([*lines, line[: line.rindex(fence)]]), True
            opened = None
        else:
            lines.append(line)
    if opened is not None:
        yield _language(opened["info"]), "\n".join(lines), False


def _language(info: str) -> str:
    words = re.split(r"[\s,:]+", info.strip(), maxsplit=1)
    return words[0].strip("{}.") if words else ""


def _spans(answer: str) -> Iterator[Block]:
    """Code inside of a line, that is more than a name."""
    for _, text in _SPAN.findall(answer)[:_PIECES]:
        tree = parse(text.strip())
        if tree is not None and any(isinstance(node, ast.FunctionDef | ast.Assign) for node in tree.body):
            yield Block(text.strip(), tree)


def _unfenced(answer: str) -> Iterator[Block]:
    """What reads as code between the prose."""
    whole = dedent(answer).strip()
    if (tree := parse(whole)) is not None:
        yield Block(whole, tree)
        return
    lines, at, tries = answer[: 5 * _LONGEST].split("\n"), 0, 0
    while at < len(lines) and tries < _PIECES:
        start = _STARTS.match(lines[at])
        if start is None:
            at += 1
            continue
        tries += 1
        indent = len(start["indent"])
        end = at + 1
        while end < len(lines) and (
            not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) >= indent
        ):
            end += 1
        part = longest(dedent("\n".join(lines[at:end])))
        if part.strip() and (tree := parse(part)) is not None:
            yield Block(part, tree)
            at += max(1, part.count("\n") + 1)
        else:
            at += 1
