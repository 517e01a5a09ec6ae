"""YAML as people mean it: the YAML 1.2 core schema, on PyYAML.

PyYAML reads YAML 1.1, where ``off`` and ``no`` are booleans, ``5e-6`` is text, ``010`` is eight,
``12:30`` is 750 and a repeated key silently wins. Here ``level: off`` is text, ``lr: 5e-6`` a
number, and a repeated key an error.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_SCALARS: list[tuple[str, str, str]] = [
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", "-+0123456789."),
    ("float", r"[-+]?[0-9]+[eE][-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
]
_RESOLVERS: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
for _tag, _pattern, _firsts in _SCALARS:
    for _first in _firsts:
        entry = (f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"))
        _RESOLVERS.setdefault(_first.strip("\0"), []).append(entry)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _RESOLVERS

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            name = getattr(key, "value", None)
            if isinstance(name, str) and name != "<<":
                if name in seen:
                    problem = f"the key {name!r} appears twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(name)
        return super().construct_mapping(node, deep)


def _octal(loader: _Loader, node: Any) -> int:
    """0o17 is 15; PyYAML knows 017 only, which is seventeen here."""
    written = loader.construct_scalar(node)
    return int(written, 8) if written.startswith("0o") else int(loader.construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _octal)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _RESOLVERS


def _text(dumper: _Dumper, text: str) -> Any:
    """Line breaks go into double quotes, which escape them: an override has one line."""
    style = '"' if any(mark in text for mark in "\n\r\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def parse(text: str) -> Any:
    """The value of one YAML document.

    Raises:
        yaml.YAMLError: bad syntax, or a mapping with a repeated key.
    """
    return yaml.load(text, _Loader)


def dump(value: Any) -> str:
    """YAML that :func:`parse` reads back as the same value; keys keep their order."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


def reason(error: yaml.YAMLError) -> str:
    """One line: what is wrong, and at which line and column."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).strip().splitlines()[0]
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark else problem


_WANTED: list[tuple[str, str]] = [
    (r"character '\\t'", "indent with spaces: YAML takes no tab there"),
    (r"character '(.)' that cannot start", "put quotes around a text that begins with {0}"),
    (
        r"mapping values are not allowed",
        "keys of one section begin in the same column, each with a colon and a space behind it; "
        "a text that holds a colon and a space needs quotes",
    ),
    (
        r"expected <block end>, but found '(,|\]|\}|<scalar>)'",
        "put quotes around the whole text, and nothing behind them; a quote inside single quotes is doubled",
    ),
    (
        r"expected <block end>|(sequence entries|mapping keys) are not allowed|block mapping",
        "keys of one section, or entries of one list, begin in the same column: give the line the "
        "indentation of those beside it",
    ),
    (
        r"could not find expected ':'",
        "write `key: value`, with a space behind the colon; what belongs to the line above stands deeper",
    ),
    (r"unknown escape|escape sequence", "a backslash in double quotes begins an escape: use single quotes"),
    (r"unexpected end of stream", "close the quote that is opened in line {open}"),
    (
        r"expected ',' or '[\]}]'",
        "close the bracket that is opened in line {open}, and put commas between its entries",
    ),
    (r"but found '<stream end>'", "close the bracket that is opened last"),
    (
        r"expected the node content",
        "give the key a value, or put quotes around a text that begins with a bracket or a comma",
    ),
    (r"appears twice", "keep one of the two"),
    (r"anchor|alias", "put quotes around a text that begins with & or *"),
    (r"constructor for the tag|tag handle|expected.* tag|tag", "put quotes around a text that begins with !"),
    (r"unhashable key", "put quotes around a text that begins with {{ or ["),
    (r"another document|single document", "one recipe a file: take out what follows `---`"),
    (r"special characters|unacceptable character", "take out the control character"),
    (r"chomping or indentation", "write the text of | or > in the lines below it"),
    (r"for merging", "`<<` takes a section, or a list of them"),
]
"""What PyYAML says, and what is to be done about it."""


def remedy(error: yaml.YAMLError) -> str:
    """What YAML wants where the syntax is broken."""
    said = f"{getattr(error, 'problem', None) or getattr(error, 'reason', None) or error}"
    opened = getattr(error, "context_mark", None) or getattr(error, "problem_mark", None)
    line = opened.line + 1 if opened else 1
    for pattern, wanted in _WANTED:
        if found := re.search(pattern, said):
            return wanted.format(*found.groups(), open=line)
    return "write `key: value`, and what belongs to a key two spaces deeper, in lines of one indentation"


def inline(value: Any) -> str:
    """The same on one line, as an override takes it: ``[a, b]``, ``{weight: 2}``, ``'5e-6'``."""
    listed = yaml.dump(
        [value], Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9, default_flow_style=True
    )
    return str(listed).strip()[1:-1]
