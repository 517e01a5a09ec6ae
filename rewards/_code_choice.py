"""Which code of an answer is run: one module, made of the pieces that the tests need.

An answer is read as one reads it: a name means its last definition, a later block goes on from the
earlier ones, and what only shows or tests the solution is left out or may fail. The choice never looks at a
result: an answer of many attempts is judged by its last.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator, Sequence
from textwrap import dedent, indent

from ._code_blocks import Block, blocks_of, longest, parse, raw_blocks, written
from ._code_names import FUNCTIONS, SCOPES, changed, is_stub, loads, outside, strong, weak

_BUILTINS = frozenset(vars(builtins))
_READS = re.compile(
    r"\binput\s*\(|\bstdin\b|\bopen\(\s*(?:0|['\"]/dev/stdin)|\bfileinput\b|\bos\.read\b|raw_input"
)
_ALWAYS = re.compile(r"^from (?:__future__ import|\S+ import \*)", re.MULTILINE)  # what they give has no name
_DEEPER = "setrecursionlimit"
_HEAD = re.compile(r"^([ \t]*)(?:async[ \t]+)?def[ \t]+(\w+)[ \t]*\(", re.MULTILINE)
_FIRST = re.compile(r"^from __future__ import .*$", re.MULTILINE)


def names_of(tests: Iterable[str]) -> frozenset[str]:
    """What tests take from the code: names that they use and do not bind themselves."""
    used: set[str] = set()
    bound: set[str] = set()
    taken: set[str] = set()
    for test in tests:
        if (tree := parse(test)) is not None:
            used |= loads(tree)
            taken |= _taken(tree) | _exemplified(test)
            bound |= (
                set(strong(tree)) | weak(tree) | {a.arg for a in ast.walk(tree) if isinstance(a, ast.arg)}
            )
    wanted = (used - bound) | taken
    return frozenset(wanted - _BUILTINS or wanted)


def _taken(tree: ast.Module) -> set[str]:
    """What is imported from the module ``solution``, which is the answer."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "solution":
            found |= {alias.name for alias in node.names} - {"*"}
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "solution":
            found.add(node.attr)
    return found


def _exemplified(test: str) -> set[str]:
    """What examples for doctest call."""
    lines = re.findall(r"^\s*>>> (.*)", test, re.MULTILINE) if "doctest" in test else []
    return {name for line in lines for name in re.findall(r"\b([^\W\d]\w*)\(", line)} - _BUILTINS


def module_of(answer: str, wanted: Iterable[str], contexts: Sequence[str] = ()) -> str:
    """The code to test, as one module.

    Args:
        wanted: the names that the tests use.
        contexts: texts that may hold the signature of what is asked for, and imports and helpers that go
            with it: the prompt, starter code.
    """
    wanted = frozenset(wanted)
    blocks = blocks_of(answer)
    parsed = [block for block in blocks if block.tree is not None]
    known = {name for block in parsed for name in (*strong(block.tree), *weak(block.tree))}
    methods = {name for block in parsed for name in _methods(block.tree)}
    for context in contexts:
        if body := _completed(answer, context, wanted - known - methods):
            return body
    if not parsed:
        return blocks[-1].text if blocks else dedent(answer).strip()
    if not known & wanted:
        kept = parsed
    else:
        given = [block for context in contexts for block in _helpers(context, wanted)]
        kept = _needed([*given, *parsed], wanted)
    return _joined(kept)


def _methods(tree: ast.Module | None) -> set[str]:
    """Names of the methods of a module's classes."""
    classes = [node for node in outside(tree) if isinstance(node, ast.ClassDef)]
    return {node.name for found in classes for node in found.body if isinstance(node, FUNCTIONS)}


def is_method(code: str, name: str) -> bool:
    """Whether a name is a method of the code's class ``Solution`` and no function of the module."""
    tree = parse(code)
    if tree is None or name in strong(tree) or name in weak(tree):
        return False
    classes = [node for node in outside(tree) if isinstance(node, ast.ClassDef) and node.name == "Solution"]
    return any(getattr(node, "name", None) == name for found in classes for node in found.body)


def program_of(answer: str) -> str:
    """The code to run as a program: the last block that does something, and reads the input if any does,
    with the definitions that it needs from others."""
    blocks = blocks_of(answer)
    parsed = [block for block in blocks if block.tree is not None]
    if not parsed:
        return blocks[-1].text if blocks else dedent(answer).strip()
    acting = [block for block in parsed if _acts(block.tree)]
    reading = [block for block in acting if _READS.search(block.text)]
    called = [block for block in acting if _READS.search(_source(parsed, block))]
    main = (reading or called or acting or parsed)[-1]
    return _source(parsed, main)


def _source(parsed: Sequence[Block], main: Block) -> str:
    others = [block for block in parsed if block is not main]
    needed = _needed([*others, main], loads(main.tree) - _BUILTINS - weak(main.tree), roots=[main])
    texts = [block.text for block in needed if block is not main] + [main.text]
    first = [line for text in texts for line in _FIRST.findall(text)]
    return "\n\n".join([*first, *(_FIRST.sub("", text) for text in texts)])


def _needed(blocks: Sequence[Block], wanted: Iterable[str], roots: Sequence[Block] = ()) -> list[Block]:
    """The blocks that define what is wanted, and what those need in turn, in their order."""
    defined: dict[str, int] = {}
    assigned: dict[str, list[int]] = {}
    used = [loads(block.tree) for block in blocks]
    touched = [changed(block.tree) for block in blocks]
    for stubs in (True, False):  # a definition beats a mere signature, wherever that stands
        for at, block in enumerate(blocks):
            defined |= {name: at for name, stub in strong(block.tree).items() if stub == stubs}
    for at, block in enumerate(blocks):
        for name in weak(block.tree):
            assigned.setdefault(name, []).append(at)
    kept = {at for at, block in enumerate(blocks) if block in roots or _ALWAYS.search(block.text)}
    kept |= {at for at, block in enumerate(blocks) if _DEEPER in block.text and not strong(block.tree)}
    todo = [(name, len(blocks), True) for name in wanted]
    todo += [(name, at, False) for at in kept for name in used[at]]
    seen = set()
    while todo:
        name, at, asked = todo.pop()
        if (name, at) in seen:
            continue
        seen.add((name, at))
        found: list[int] = []
        if name in defined:
            found = [defined[name]]
        elif (places := assigned.get(name, [])) and (asked or name not in _BUILTINS):
            if at not in places:
                found = [next((place for place in reversed(places) if place < at), places[0])]
            # Blocks before that fill a table are part of it.
            found += [place for place in range(at) if name in touched[place]]
        for place in found:
            if place not in kept:
                kept.add(place)
                todo += [(other, place, False) for other in used[place]]
    return [blocks[at] for at in sorted(kept)]


def _joined(blocks: Sequence[Block]) -> str:
    """One module. A statement that fails, unless it is a plain definition, does not end the rest: it may be
    a demonstration, or a test of the answer's own."""
    first: list[ast.stmt] = []
    body: list[ast.stmt] = []
    real = {name for block in blocks for name, stub in strong(block.tree).items() if not stub}
    for block in blocks:
        assert block.tree is not None
        for node in block.tree.body:
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                first.append(node)
            elif isinstance(node, ast.FunctionDef) and not node.decorator_list:
                if not (is_stub(node) and node.name in real):
                    body.append(node)
            else:
                failures = ast.Tuple(
                    [ast.Name("Exception", ast.Load()), ast.Name("SystemExit", ast.Load())], ast.Load()
                )
                body.append(ast.Try([node], [ast.ExceptHandler(failures, None, [ast.Pass()])], [], []))
    text = written(ast.Module([*first, *body], []))
    return "\n\n".join(block.text for block in blocks) if text is None else text


def _helpers(context: str, wanted: frozenset[str]) -> Iterator[Block]:
    """What a context defines beside the functions asked for: a right answer must be the answer's."""
    for block in blocks_of(context):
        text = block.text if block.tree is not None else longest(block.text)
        tree = parse(text) if text else None
        if tree is None:
            continue
        tree.body = [
            node for node in tree.body if isinstance(node, (*SCOPES, ast.Import, ast.ImportFrom, ast.Assign))
        ]
        tree.body = [
            node
            for node in tree.body
            if not wanted & ({getattr(node, "name", "")} | weak(ast.Module([node], [])))
        ]
        if tree.body and (text := written(tree)) is not None:
            yield Block(text, tree)


def _completed(answer: str, context: str, wanted: frozenset[str]) -> str | None:
    """The context with the answer as the body of its last function, where that is what is wanted."""
    for text in (*raw_blocks(context), *_from_code(context)) if wanted else ():
        text = dedent(text.rstrip()) if text[:1].isspace() else text.rstrip()
        heads = list(_HEAD.finditer(text))
        if not heads or not (heads[-1][2] in wanted or _class_of(text) & wanted):
            continue
        if (head := _head(text, heads[-1][2])) is None:
            continue
        margin = heads[-1][1] + "    "
        for raw in raw_blocks(answer)[:3]:
            raw = raw.strip("\n").rstrip()
            for body in (
                raw,
                margin + raw.lstrip(),
                indent(dedent(raw), margin),
                indent(dedent(margin + raw.lstrip()), margin),
            ):
                made = longest(f"{head}\n{body}")
                if (tree := parse(made)) is not None and _is_filled(tree, heads[-1][2], head.count("\n") + 1):
                    return _joined([Block(made, tree)])
    return None


def _head(text: str, name: str) -> str | None:
    """A context up to the end of the function that it leaves open; None where it does not."""
    for tail in ("", "\n    pass", "\n        pass"):
        if (tree := parse(text + tail)) is not None:
            found = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS) and node.name == name]
            if not found or not is_stub(found[-1]):
                return None
            return "\n".join(text.split("\n")[: found[-1].end_lineno])
    return None


def _from_code(context: str) -> Iterator[str]:
    """An unfenced context from its first line of code on."""
    start = re.search(r"^(?:(?:async )?def |class |import |from \S+ import |@)", context, re.MULTILINE)
    if start:
        yield context[start.start() :]


def _class_of(text: str) -> set[str]:
    return set(re.findall(r"^class[ \t]+(\w+)", text, re.MULTILINE))


def _is_filled(tree: ast.Module, name: str, lines: int) -> bool:
    """Whether the function has a body that does something, below the lines of its head."""
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS) and node.name == name:
            doing = (ast.Return, ast.Yield, ast.YieldFrom, ast.Raise, ast.Assign, ast.AugAssign, ast.Call)
            return any(
                isinstance(part, doing) and getattr(part, "lineno", 0) > lines
                for statement in node.body
                for part in ast.walk(statement)
            )
    return False


def _acts(tree: ast.Module | None) -> bool:
    """Whether a module does more than define."""
    assert tree is not None
    quiet = (*SCOPES, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    return any(
        not isinstance(node, quiet)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in tree.body
    ) or any(isinstance(node, ast.Assign) and _READS.search(written(node) or "") for node in tree.body)
