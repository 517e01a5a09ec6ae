"""Linked lists and binary trees as rows write them: lists, which functions take and give as nodes.

A list ``[1, 2, 3]`` is a chain of ``ListNode``; a tree is written level by level, with null where a child
is missing. Which arguments are nodes is in the annotations of the function.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from align.reward import RewardError

NODES = """
def _node_of(value, kind, roots):
    if isinstance(kind, list):
        return [_node_of(each, kind[0], roots) for each in value] if isinstance(value, list) else value
    if kind is None or value is None or value == []:
        return value if kind is None else None
    if kind == "ListNode":
        if not isinstance(value, list):
            return value
        made = [ListNode(each) for each in value]
        for one, other in zip(made, made[1:]):
            one.next = other
        return made[0]
    if not isinstance(value, list):  # a node of the tree before it, by its value
        open_ = [root for root in roots if isinstance(root, TreeNode)]
        while open_:
            node = open_.pop()
            if node.val == value:
                return node
            open_ += [each for each in (node.left, node.right) if each is not None]
        return value
    made = [None if each is None else TreeNode(each) for each in value]
    rest = iter(made[1:])
    for node in made:
        if node is not None:
            node.left, node.right = next(rest, None), next(rest, None)
    return made[0]
def _written(value, whole):
    if isinstance(value, (list, tuple)):
        return [_written(each, whole) for each in value]
    if not isinstance(value, (ListNode, TreeNode)):
        return value
    if not whole:
        return value.val
    found, open_ = [], [value]
    if isinstance(value, ListNode):
        while value is not None and len(found) < 100_000:
            found.append(value.val)
            value = value.next
        return found
    for node in open_:
        if len(found) >= 100_000:
            break
        found.append(None if node is None else node.val)
        if node is not None:
            open_ += [node.left, node.right]
    while found and found[-1] is None:
        found.pop()
    return found
def _with_nodes(function, kinds, result, whole, given):
    made = []
    for value, kind in zip(given, kinds):
        made.append(_node_of(value, kind, made))
    got = function(*made, *given[len(kinds):])
    if result == "None" and got is None:  # it changes its first argument
        got = made[0] if made else None
    return [] if got is None and whole and result is not None else _written(got, whole)
"""
"""Runs behind the answer's code, with its classes."""

_MADE = ("ListNode", "TreeNode")
_STRANGE = re.compile(r"\b(?:\w*Node|NestedInteger|Employee)\b")


@dataclass(frozen=True)
class Signature:
    """Kinds of a function's arguments and of its result: a class of nodes, a list with one, or None for any
    other; the result of a function that changes its nodes is the text ``None``."""

    arguments: list[Any]
    result: Any

    @property
    def nodes(self) -> bool:
        """Whether there is anything to make or to write."""
        return any(self.arguments) or bool(self.result)


def signature_of(name: str, code: str, asked: Sequence[str], column: str, cases: Sequence[Any]) -> Signature:
    """The signature that a row gives, else that of the answer's code.

    Args:
        name: of the function.
        code: of the answer.
        asked: texts of the row that may hold the signature.
        column: named in errors.
        cases: arguments of each case.

    Raises:
        RewardError: the row's function takes nodes that cannot be made of its arguments.
    """
    for text in asked:
        found = _read(name, text)
        if found is None or not _STRANGE.search(found[0]):
            continue
        strange = set(_STRANGE.findall(found[0])) - set(_MADE)
        if strange:
            raise _unmade(column, f"arguments of type {min(strange)}")
        if any(len(given) != len(found[1].arguments) for given in cases):
            raise _unmade(
                column, f"{len(cases[0])} values for {len(found[1].arguments)} arguments with nodes"
            )
        return found[1]
    found = _read(name, code)
    return found[1] if found else Signature([], None)


def trimmed(wanted: Any, signature: Signature) -> Any:
    """What a function must give, as it is written here: no nodes are an empty list, trees end in a node."""
    if signature.result is None:
        return wanted
    if wanted is None:
        return []
    end = len(wanted) if isinstance(wanted, list) else 0
    if signature.result == "TreeNode":
        while end and wanted[end - 1] is None:
            end -= 1
        return wanted[:end] if isinstance(wanted, list) else wanted
    return wanted


def _read(name: str, text: str) -> tuple[str, Signature] | None:
    """The annotations of the last function of that name, as written and as kinds."""
    heads = re.findall(rf"^[ \t]*def {re.escape(name)}\s*\(([^()]*)\)\s*(->\s*[^:\n]+)?:", text, re.MULTILINE)
    if not heads:
        return None
    inside, result = heads[-1]
    try:
        node = ast.parse(f"def f({inside}){result}: pass").body[0]
    except SyntaxError:
        return None
    assert isinstance(node, ast.FunctionDef)
    kinds = [_kind(each.annotation) for each in node.args.args if each.arg != "self"]
    gives = _kind(node.returns)
    if isinstance(node.returns, ast.Constant) and node.returns.value is None and any(kinds):
        gives = "None"
    return f"{inside} {result}", Signature(kinds, gives)


def _kind(annotation: ast.expr | None) -> Any:
    written = ast.unparse(annotation).replace("'", "").replace('"', "") if annotation else ""
    made = next((name for name in _MADE if name in written), None)
    return [made] if made and re.match(r"(?:typing\.)?(?:[Ll]ist|Sequence)\[", written) else made


def _unmade(column: str, what: str) -> RewardError:
    return RewardError(
        f"{what} cannot be made of its inputs: only ListNode and TreeNode are, of one list each",
        key=column,
        remedy="keep such rows off the term with `where`, or write their tests as statements",
    )
